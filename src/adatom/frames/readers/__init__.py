"""Read frames of any file format, with their pixel size."""
