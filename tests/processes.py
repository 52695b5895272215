"""The real things that tests talk to: Redis servers and Holdline servers, each a process of its own."""

import asyncio
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from redis.asyncio import Redis

from sessions.client.connection import Client

ROOT = Path(__file__).parent.parent
PATIENCE_S = 60
"""How long to wait for what must come; no test's result depends on how soon it does."""

REDIS_KINDS = ("redis", "cluster")


@dataclass
class Server:
    """A running Holdline."""

    url: str
    process: asyncio.subprocess.Process
    log: Path
    home: Path

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """End the supervisor with a signal; returns its exit status."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        async with asyncio.timeout(PATIENCE_S):
            return await self.process.wait()

    def logged(self) -> str:
        """All that it has logged."""
        return self.log.read_text()


@asynccontextmanager
async def private_folder() -> AsyncIterator[Path]:
    """A folder with a short path, as Unix sockets need; gone afterwards."""
    home = Path(tempfile.mkdtemp(prefix="holdline-", dir="/tmp"))
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


@asynccontextmanager
async def holdline(**settings: str) -> AsyncIterator[Server]:
    """A server started as `make run` does, on a free port, with these variables and no others of ours."""
    async with private_folder() as home:
        server = await start(home, **settings)
        try:
            yield server
        finally:
            await server.stop()


async def start(home: Path, **settings: str) -> Server:
    """Start a server whose data, settings and log lie in `home`; returns when it is ready."""
    environment = {
        name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ
    }
    environment |= {
        "PORT": "0",
        "DATA_DIR": str(home / "data"),
        "PYTHONUNBUFFERED": "1",
        **settings,
    }
    log = home / "server.log"
    with log.open("ab") as sink:
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(ROOT / "server.py"),
            cwd=home, env=environment, stdout=asyncio.subprocess.PIPE, stderr=sink,
        )  # fmt: skip
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        async for line in process.stdout:
            if found := re.match(r"Holdline\s+(http://\S+)/", line.decode()):
                return Server(found[1], process, log, home)
    raise AssertionError(f"the server did not start: {log.read_text()}")


def redis_of_kind(kind: str) -> AbstractAsyncContextManager[str]:
    """A Redis of one of `REDIS_KINDS`; yields its URL."""
    return redis_server() if kind == "redis" else redis_cluster()


@asynccontextmanager
async def redis_server(*options: str) -> AsyncIterator[str]:
    """A Redis of the tests' own on a Unix socket; yields its URL."""
    async with private_folder() as home:
        path = home / "redis.sock"
        process = await asyncio.create_subprocess_exec(
            "redis-server", "--port", "0", "--unixsocket", str(path), "--dir", str(home), "--save", "",
            *options,
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
    """A Redis Cluster on loopback: three masters, each with so many replicas; yields its URL."""
    async with AsyncExitStack() as stack:
        count = 3 * (1 + replicas)
        ports = free_ports(2 * count)
        refs = list(zip(ports[:count], ports[count:], strict=True))
        nodes: list[Client] = []
        for port, bus in refs:
            path = await stack.enter_async_context(
                redis_server(
                    "--port", str(port), "--cluster-enabled", "yes", "--cluster-port", str(bus),
                    "--cluster-node-timeout", "2000", "--repl-diskless-sync-delay", "0",
                )
            )  # fmt: skip
            nodes.append(await stack.enter_async_context(Redis.from_url(path)))
        for number, node in enumerate(nodes[:3]):
            slots = (16384 * number // 3, 16384 * (number + 1) // 3 - 1)
            await node.execute_command("CLUSTER ADDSLOTSRANGE", *slots)
            await node.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
        for port, bus in refs:
            await nodes[0].execute_command("CLUSTER MEET", "127.0.0.1", port, bus)
        async with asyncio.timeout(PATIENCE_S):
            for node in nodes:
                await until_cluster_knows(node, cluster_known_nodes=count, cluster_slots_ok=16384)
            for number, node in enumerate(nodes[3:]):
                master = await nodes[number % 3].execute_command("CLUSTER MYID")
                await node.execute_command("CLUSTER REPLICATE", master)
            for node in nodes:
                while (info := await node.info("replication"))["role"] == "slave" and (
                    info["master_link_status"] != "up"
                ):
                    await asyncio.sleep(0.02)
                await until_cluster_knows(node, cluster_state="ok")
        yield "redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port, _ in refs)


async def until_cluster_knows(node: Client, **expected: object) -> None:
    """Return when a node says this of its Cluster."""
    while True:
        info = await node.execute_command("CLUSTER INFO")
        if all(info[name] == str(value) for name, value in expected.items()):
            return
        await asyncio.sleep(0.02)


def free_ports(count: int) -> list[int]:
    """Ports on which nobody listens now."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def serving(line: tuple[int, int]) -> int:
    """The process that asks the upstream over this line: the port that it asks from, and the upstream's.

    The first alone would not do: others may use the same port to somewhere else.
    """
    for connection in psutil.net_connections("tcp"):
        found = (
            connection.laddr and connection.raddr and (connection.laddr.port, connection.raddr.port)
        )
        if found == line and connection.pid:
            return int(connection.pid)
    raise AssertionError("nobody holds that connection")
