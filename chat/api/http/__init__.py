"""Serve an application over HTTP: the server of a worker, HTTP/1.0, and a path prefix."""
