"""Accuracy of a bundle on labelled images."""
