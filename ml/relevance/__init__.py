"""Relevance of a candidate to the subject item or the query, by labels of raters: its model and its measurement."""
