"""Nion Swift: the bridge that runs in its process, and the microscope that adatom sees."""
