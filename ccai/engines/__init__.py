"""Engines run models: they complete conversations and score labels."""
