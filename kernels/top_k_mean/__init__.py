"""top_k_mean: the mean of each image's k largest values."""
