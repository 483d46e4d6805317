"""Artificial defects: what kinds there are, where they lie, and how they are painted into a good image (eq. 1)."""
