"""``python -m adatom``: the command line."""

from adatom.cli import main

main()
