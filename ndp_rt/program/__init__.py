"""A model as data: its tensors, stages, contract and thresholds."""
