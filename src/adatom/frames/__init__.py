"""Frames: read them, simulate them, calibrate them."""
