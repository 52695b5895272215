"""Serve an application over HTTP: the server of a worker, and HTTP/1.0."""
