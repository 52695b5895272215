"""Who is asking, and what was said: durable, in Redis."""
