"""nearest_neighbour: how far each position's features lie from the nearest of a set of patches."""
