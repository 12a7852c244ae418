"""Analysis of a frame: atoms, vacancies, lattice, defects, maps and flags."""
