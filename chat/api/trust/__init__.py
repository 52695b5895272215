"""Proxies that may state a client's address, and the names of this server."""
