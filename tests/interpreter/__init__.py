"""CUDA kernels on the CPU: an interpreter runs the PTX that NVRTC makes of them, and watches every access to memory."""
