"""A model family as another package brings it: frozen features, a memory of good images, a head trained on defects."""
