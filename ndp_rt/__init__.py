"""ndp-rt: surface-defect inspection with NDP-Net."""
