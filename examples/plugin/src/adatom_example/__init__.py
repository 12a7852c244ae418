"""Parts that this package adds to adatom; ``pyproject.toml`` names them."""
