"""Make ensembles: train them, calibrate them, measure them, adapt them to an experiment."""
