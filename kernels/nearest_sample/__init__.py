"""nearest_sample: how features differ from those of the nearest of several images, position by position."""
