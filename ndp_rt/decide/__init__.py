"""From an anomaly map to a score, a decision and the regions of defects; thresholds and how they are calibrated."""
