"""An attack run: every vector that Holdline defends against, on servers that it starts itself.

`python -m tests.attack` prints a table, and exits with 1 if a defence did not hold. Every vector is
bounded in requests, bytes and time. `--url` attacks a running server on loopback instead, with the
vectors that need no view of its processes.
"""
