"""Preference pairs: how they are built, and which ones are dropped."""
