"""Chooses the layers of a bundle that compute in int8: `ndp-rt quantise`."""
