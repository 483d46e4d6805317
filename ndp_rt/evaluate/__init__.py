"""How well a bundle decides on labelled images."""
