"""threshold: which pixels of a map reach a limit."""
