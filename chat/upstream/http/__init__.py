"""HTTP/1.1 to an upstream: connections, their pool, and the client that uses them."""
