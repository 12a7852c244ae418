"""Learning: the network, its training, the ensemble, the weights."""
