"""Suites, one per module: the requests to each arm, and the measures of its answers."""
