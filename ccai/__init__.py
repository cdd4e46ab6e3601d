"""Contemplative constitutional AI: conversations, completions, preference pairs, training and evaluation."""

__version__ = "0.1.0"
