"""fuse_maps: the weighted sum of three level maps (eq. 11)."""
