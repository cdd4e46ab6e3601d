"""Models by name: the catalogue, where files come from, where models fit, and how they are loaded."""
