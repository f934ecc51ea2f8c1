"""Queries, the lists of every model and baseline, and their figures."""
