"""The page of `ndp-rt bench report`: records as one HTML file that needs nothing else."""
