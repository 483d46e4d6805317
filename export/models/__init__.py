"""The reference networks, one page each, in plain PyTorch."""
