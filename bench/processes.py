"""Run processes on one core, and wait until they are ready."""

import contextlib
import functools
import os
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

_TIMEOUT_S = 90
_POLL_INTERVAL_S = 0.01


class StartError(Exception):
    """A process is not installed or does not start; the message gives the reason or the remedy."""


@contextlib.contextmanager
def run_process(
    command: list[str], core: int, log: Path, variables: Mapping[str, str] = MappingProxyType({})
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process on one core, with a minimal environment, and terminate it afterwards."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command,
            cwd=log.parent,
            env=inherited | dict(variables),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            preexec_fn=functools.partial(os.sched_setaffinity, 0, {core}),
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def make_folder() -> Iterator[Path]:
    """Create a temporary directory whose path is short enough for Unix sockets."""
    with tempfile.TemporaryDirectory(
        prefix="bench-", dir="/tmp", ignore_cleanup_errors=True
    ) as name:
        yield Path(name)


def wait_for_output(process: subprocess.Popen[bytes], log: Path, pattern: str) -> str:
    """Wait until a process logs the pattern, and return its first group. Raises StartError."""
    for _ in _poll(process, log):
        if found := re.search(pattern, log.read_text(errors="replace")):
            return found[1]
    raise AssertionError("unreachable: _poll raises")


def wait_for_port(process: subprocess.Popen[bytes], log: Path, port: int) -> None:
    """Wait until a process listens on the port. Raises StartError."""
    for _ in _poll(process, log):
        with (
            contextlib.suppress(ConnectionRefusedError),
            socket.create_connection(("127.0.0.1", port)),
        ):
            return


def _poll(process: subprocess.Popen[bytes], log: Path) -> Iterator[None]:
    """Yield while the process runs; raises StartError when it exits or the time is up."""
    deadline = time.monotonic() + _TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        yield
        time.sleep(_POLL_INTERVAL_S)
    raise StartError(f"did not start: {log.read_text(errors='replace')[-2000:]}")


def find_free_port() -> int:
    """Return a TCP port that is free at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
