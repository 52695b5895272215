"""Whom to believe: the proxies that may state a client's address, and the names of this server."""
