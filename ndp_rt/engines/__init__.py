"""Engines: a bundle's stages compiled for one backend, device and precision, behind one protocol."""
