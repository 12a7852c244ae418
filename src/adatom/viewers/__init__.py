"""Campaigns in other programs: a reader for napari and one for HyperSpy.

Neither program is needed to use adatom; each imports the module that it needs.
"""
