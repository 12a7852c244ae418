"""adatom: from microscope frames to simulations and back."""

from __future__ import annotations

__version__ = "0.1.0"
