"""CUDA through CuPy, for the GPU pipeline: devices, memory, streams, graphs, arrays of other libraries."""
