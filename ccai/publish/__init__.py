"""A trained model or the pairs, for use elsewhere."""
