"""Blind review of pairs by people: the page, the reviewers' files, and their agreement."""
