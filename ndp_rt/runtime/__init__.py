"""Executors, which run a model on a host or on a GPU."""
