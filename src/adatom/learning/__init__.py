"""The networks: architecture, training, ensembles, prediction, weights on disk."""
