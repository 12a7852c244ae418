"""Campaign: the steps composed, the configuration, the executors."""
