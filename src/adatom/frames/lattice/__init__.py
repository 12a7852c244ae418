"""The lattice of a frame, from its power spectrum and from its atoms."""
