"""smooth: the mean and then the median of each pixel's neighbours."""
