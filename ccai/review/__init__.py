"""Blind review of pairs by people."""
