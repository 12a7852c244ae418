"""Report: figures and the static page."""
