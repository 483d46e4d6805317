"""What the GPU pipeline needs of CUDA, through CuPy: devices, memory, streams, graphs, arrays of other libraries."""
