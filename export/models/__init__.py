"""Model families: one folder each, with everything that knows the model's layers."""
