"""Landing files to validated tables: read, validate rows, deduplicate, write."""
