"""What a model is, as data: its tensors, stages, contract and thresholds."""
