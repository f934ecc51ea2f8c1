"""What is known of users, items and advertisers as of an instant."""
