"""Iterative training on the first frames of an experiment."""
