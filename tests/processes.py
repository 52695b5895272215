"""Start the servers that tests use, each in its own process: Redis, Redis Cluster and Holdline."""

import asyncio
import os
import re
import secrets
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from redis.asyncio import Redis

from sessions.client.connection import Client

EAGER = (sys.executable, str(Path(__file__).parent / "eager_server.py"))
"""The command before a server whose workers a test kills again and again."""

ROOT = Path(__file__).parent.parent
PATIENCE_S = 60
"""Maximum time to wait for an expected event. No result depends on how early the event occurs."""

REDIS_KINDS = ("redis", "cluster")


@dataclass
class Server:
    """A running Holdline."""

    url: str
    process: asyncio.subprocess.Process
    log: Path
    home: Path

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """Send the supervisor a signal and return its exit status."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        async with asyncio.timeout(PATIENCE_S):
            return await self.process.wait()

    def read_log(self) -> str:
        """Return the server's log so far."""
        return self.log.read_text()


@asynccontextmanager
async def private_folder() -> AsyncIterator[Path]:
    """Yield a folder with a path short enough for Unix sockets, and remove it afterwards."""
    home = Path(tempfile.mkdtemp(prefix="holdline-", dir="/tmp"))
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


@asynccontextmanager
async def holdline(*wrapper: str, **settings: str) -> AsyncIterator[Server]:
    """Run a server as `make run` does, on a free port, with only these settings.

    `wrapper` is a command that runs the server.
    """
    async with private_folder() as home:
        server = await start(home, *wrapper, **settings)
        try:
            yield server
        finally:
            await server.stop()


async def start(home: Path, *wrapper: str, **settings: str) -> Server:
    """Start a server with its data, settings and log in `home`; return when it is ready.

    `wrapper` is a command that runs the server, such as `prlimit`.
    """
    environment = {
        name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ
    }
    environment |= {
        "PORT": "0",
        "DATA_DIR": str(home / "data"),
        "PYTHONUNBUFFERED": "1",
        "DRAIN_S": "0",  # otherwise each stop would wait for answers that the test does not finish
        "TURNS_MAX": "off",
        **settings,
    }
    log = home / "server.log"
    with log.open("ab") as sink:
        process = await asyncio.create_subprocess_exec(
            *wrapper, sys.executable, str(ROOT / "server.py"),
            cwd=home, env=environment, stdout=asyncio.subprocess.PIPE, stderr=sink,
        )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE_S):
            async for line in process.stdout:
                if found := re.match(r"Holdline\s+(http://\S+)/", line.decode()):
                    return Server(found[1], process, log, home)
        raise AssertionError(f"the server did not start: {log.read_text()}")
    except BaseException:
        if process.returncode is None:
            process.kill()
        await process.wait()
        raise


def redis_of_kind(kind: str) -> AbstractAsyncContextManager[str]:
    """Run a Redis of one of `REDIS_KINDS` and yield its URL."""
    return redis_server() if kind == "redis" else redis_cluster()


@asynccontextmanager
async def redis_server(*options: str) -> AsyncIterator[str]:
    """Run a Redis on a Unix socket and yield its URL."""
    async with private_folder() as home:
        path = home / "redis.sock"
        process = await asyncio.create_subprocess_exec(
            "redis-server", "--port", "0", "--unixsocket", str(path), "--dir", str(home),
            "--save", "", *options,
            stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            async with asyncio.timeout(PATIENCE_S), Redis(unix_socket_path=str(path)) as redis:
                while not path.exists() or not await redis.ping():
                    await asyncio.sleep(0.01)
            yield f"unix://{path}"
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


@asynccontextmanager
async def redis_cluster(replicas: int = 0) -> AsyncIterator[str]:
    """Run a Redis Cluster of three masters on loopback and yield its URL.

    Each master has `replicas` replicas.
    """
    async with AsyncExitStack() as stack:
        nodes: list[Client] = []
        places = cluster_options(3 * (1 + replicas))
        for _, _, options in places:
            path = await stack.enter_async_context(redis_server(*options))
            nodes.append(await stack.enter_async_context(Redis.from_url(path)))
        yield await form_cluster(nodes, [(port, bus) for port, bus, _ in places])


def cluster_options(count: int) -> list[tuple[int, int, tuple[str, ...]]]:
    """Return for each node of a Cluster its port, its port for other nodes, and its options."""
    ports = free_ports(2 * count)
    return [
        (
            port,
            bus,
            (
                "--port", str(port), "--cluster-enabled", "yes", "--cluster-port", str(bus),
                "--cluster-node-timeout", "2000", "--repl-diskless-sync-delay", "0",
            ),
        )
        for port, bus in zip(ports[:count], ports[count:], strict=True)
    ]  # fmt: skip


async def form_cluster(nodes: list[Client], addresses: list[tuple[int, int]]) -> str:
    """Make a Cluster of running nodes, the first three of them masters, and return its URL."""
    for number, node in enumerate(nodes[:3]):
        slots = (16384 * number // 3, 16384 * (number + 1) // 3 - 1)
        await node.execute_command("CLUSTER ADDSLOTSRANGE", *slots)
        await node.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
    for port, bus in addresses:
        await nodes[0].execute_command("CLUSTER MEET", "127.0.0.1", port, bus)
    async with asyncio.timeout(PATIENCE_S):
        for node in nodes:
            await wait_for_cluster_info(
                node, cluster_known_nodes=len(nodes), cluster_slots_ok=16384
            )
        for number, node in enumerate(nodes[3:]):
            master = await nodes[number % 3].execute_command("CLUSTER MYID")
            await node.execute_command("CLUSTER REPLICATE", master)
        for node in nodes:
            while (info := await node.info("replication"))["role"] == "slave" and (
                info["master_link_status"] != "up"
            ):
                await asyncio.sleep(0.02)
            await wait_for_cluster_info(node, cluster_state="ok")
    return "redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port, _ in addresses)


async def wait_for_cluster_info(node: Client, **expected: object) -> None:
    """Return when a node's CLUSTER INFO has these values."""
    while True:
        info = await node.execute_command("CLUSTER INFO")
        if all(info[name] == str(value) for name, value in expected.items()):
            return
        await asyncio.sleep(0.02)


def free_ports(count: int) -> list[int]:
    """Return ports on which no process listens now.

    They are below those that Linux and macOS give to connections: none can take a port meanwhile.
    """
    ports: set[int] = set()
    while len(ports) < count:
        port = 10_000 + secrets.randbelow(20_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            ports.add(port)
    return list(ports)


def find_worker(connection: tuple[int, int]) -> int:
    """Return the id of the process that has this connection to the fake upstream.

    `connection` is its local and remote port. The local port alone is ambiguous: connections to
    other addresses may use the same one.
    """
    for found in psutil.net_connections("tcp"):
        ports = found.laddr and found.raddr and (found.laddr.port, found.raddr.port)
        if ports == connection and found.pid:
            return int(found.pid)
    raise AssertionError(f"no process has the connection {connection}")
