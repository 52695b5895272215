"""Trust in a request: the proxies that may set headers, the client's network, the server's names."""
