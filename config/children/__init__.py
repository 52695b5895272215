"""The processes that the supervisor runs in addition to the workers: Redis and llama-server."""
