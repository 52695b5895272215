"""Check the source of a request: trusted proxies, the client's network, the server's names."""
