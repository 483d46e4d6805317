"""Training runs of any family: settings, the loop, checkpoints, the run folder."""
