"""What this machine computes on: its CPU, its GPUs, and arrays of other libraries there."""
