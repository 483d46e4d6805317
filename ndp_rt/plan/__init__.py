"""Plans: the only place that knows a model's order of steps."""
