"""The HTTP server: connections, their bounds, processes, and an orderly end."""
