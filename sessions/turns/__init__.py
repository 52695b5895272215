"""Turns in Redis: their scripts, their records, the index of those that run, their limits."""
