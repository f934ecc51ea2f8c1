"""Ranked lists: exact search, and the index."""
