"""Simulation engines: one file each, registered under the entry point group ``adatom.engines``."""
