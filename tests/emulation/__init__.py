"""CUDA kernels on the CPU: the very same sources, built by the host compiler over a small model of the GPU."""
