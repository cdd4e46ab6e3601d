"""Models by name: where they come from, where they fit, and how they are loaded."""
