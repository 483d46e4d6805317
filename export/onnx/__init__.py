"""Bundles from finished runs: graphs, parity with PyTorch, golden vectors, thresholds."""
