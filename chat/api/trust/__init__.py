"""Proxies that may state a client's address, its network, and the names of this server."""
