"""PyTorch reference models, training, and export to bundles; nothing at run time imports this."""
