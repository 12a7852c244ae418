"""Worker processes, and how a long job tells of its progress."""
