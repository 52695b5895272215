"""Handle HTTP requests: validate them, begin and view turns, and serve the web UI."""
