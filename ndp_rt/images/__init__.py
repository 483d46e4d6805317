"""Images: found, decoded, checked, preprocessed, painted, drawn."""
