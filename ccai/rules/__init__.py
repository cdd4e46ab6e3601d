"""Rule-based scores of one answer: no model, no network."""
