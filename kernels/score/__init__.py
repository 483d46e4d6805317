"""score: the largest value of each image."""
