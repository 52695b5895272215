"""The processes that the supervisor runs beside the workers: Redis and llama-server."""
