"""Materials: the built-in ones, and those of a TOML or a structure file."""
