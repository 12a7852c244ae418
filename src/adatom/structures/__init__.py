"""Structures: supercells, and draws from the uncertainty."""
