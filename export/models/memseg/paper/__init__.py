"""MemSeg's preset `paper`: the network of its authors, with a memory of good images."""
