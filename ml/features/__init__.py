"""Features of users, items and advertisers as of an instant."""
