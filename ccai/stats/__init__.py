"""Intervals, effect sizes, paired tests, and what differences amount to."""
