"""Preference pairs: candidates, the gates that drop some, and the files of the rest."""
