"""Operations of our own: a NumPy definition of correct for each, and its CPU and CUDA forms."""
