"""Simulated frames with exact truth: conditions, specimen, image."""
