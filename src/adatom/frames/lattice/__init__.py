"""The lattice of a frame: by its spectrum, and by its atoms."""
