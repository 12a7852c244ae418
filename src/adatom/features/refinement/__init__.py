"""Maximum-likelihood refinement of all atoms of a frame together."""
