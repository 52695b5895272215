"""The connection to Redis: the only package that imports redis."""
