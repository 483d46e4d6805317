"""Good images: finding and splitting them, training batches with artificial defects, the demo's photographs."""
