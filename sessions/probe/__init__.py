"""Try Redis for `/readyz`."""
