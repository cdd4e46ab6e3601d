"""Rule-based scores of one answer, without a model or the network."""
