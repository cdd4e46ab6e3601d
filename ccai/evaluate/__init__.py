"""Evaluation: arms, suites, and comparisons with the base model."""
