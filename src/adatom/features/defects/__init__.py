"""Name the defects of a frame."""
