"""Engines turn conversations into completions."""
