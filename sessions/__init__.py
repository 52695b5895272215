"""Sessions, conversations and turns, stored in Redis."""
