"""Send a command to the embedded Redis, for which the supervisor needs no client library."""

import os
import re
import socket
from pathlib import Path


def send_command(path: Path, command: bytes, timeout_s: float) -> bytes:
    """Send an inline command to the Unix socket `path`; return the reply, b"" if there is none.

    The reply is a whole bulk string, or the line of any other type.
    """
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout_s)
            connection.connect(os.fspath(path))
            connection.sendall(command + b"\r\n")
            with connection.makefile("rb") as reply:
                line = reply.readline()
                size = re.fullmatch(rb"\$(\d+)\r\n", line)
                return reply.read(int(size[1])) if size else line
    except OSError:  # includes that this process has no free descriptor
        return b""
