"""From a frame to its answer: atoms, vacancies, lattice, defects, maps and flags."""
