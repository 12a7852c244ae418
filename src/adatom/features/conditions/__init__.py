"""Imaging conditions that frames show: probe, dose, background, noise."""
