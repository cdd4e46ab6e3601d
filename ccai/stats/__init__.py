"""Intervals and tests, and two sets of scores compared by them."""
