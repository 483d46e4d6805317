"""Archives: more images than one process inspects, in shards, by processes of one machine or a Ray cluster."""
