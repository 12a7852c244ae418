"""Frames: read them, simulate them, calibrate them."""

from adatom.frames.readers.read import read

__all__ = ["read"]
