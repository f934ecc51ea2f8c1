"""Relevance: how well a candidate fits the subject item or the query, by labels of raters; its model, and its measurement."""
