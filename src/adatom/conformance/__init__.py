"""Tests that a package runs on what it adds to adatom."""
