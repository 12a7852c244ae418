"""``python -m adatom``: the command line."""

from adatom.cli.main import main

main()
