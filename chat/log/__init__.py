"""A turn's log: committed to Redis in batches, read by any number of viewers."""
