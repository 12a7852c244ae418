"""Instruments: the simulated microscope."""
