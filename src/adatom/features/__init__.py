"""Features: from probability maps to atoms, bonds, rings, defects and their tracks."""
