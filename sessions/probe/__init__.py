"""Try Redis: before the server starts, and for `/readyz`."""
