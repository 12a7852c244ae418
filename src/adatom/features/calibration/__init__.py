"""Probabilities and error bars that hold on held-out frames."""
