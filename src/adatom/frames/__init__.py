"""Frames: read them, simulate them, calibrate them."""

from adatom.frames.read import read

__all__ = ["read"]
