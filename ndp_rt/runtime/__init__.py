"""What runs a model on a host or on a GPU."""
