"""Devices of this machine: CPU, GPUs, and arrays of other libraries on them."""
