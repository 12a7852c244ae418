"""Worker processes, threads, and reports of progress."""
