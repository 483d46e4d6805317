"""nearest_patch: the distance of each position's features to the nearest patch of a memory."""
