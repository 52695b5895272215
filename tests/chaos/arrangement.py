"""Run the processes of an arrangement, and apply faults to them."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Protocol

import psutil
from redis.asyncio import Redis

from tests.chaos.plan import SERVERS, WORKERS, Arrangement, Fault, Kind
from tests.own_redis import own_cluster, own_redis
from tests.processes import PATIENCE_S, Server, free_ports, private_folder, start

_START_LIMIT_S = 2 * PATIENCE_S
_STOP_LIMIT_S = 20
"""A server with DRAIN_S=1 stops within this time, whatever the state of Redis."""


class Node(Protocol):
    """A Redis process."""

    @property
    def admin(self) -> "Redis": ...
    async def start(self) -> None: ...
    async def stop(self, number: int = ...) -> None: ...
    def freeze(self) -> None: ...
    def thaw(self) -> None: ...


class ServerProcess:
    """A Holdline that is started again on the same port and data after it was ended."""

    def __init__(self, home: Path, port: int, settings: dict[str, str]) -> None:
        self.port = port
        self.lock = asyncio.Lock()
        """Held while the server, or a process of it, is down or frozen."""
        self.problems: list[str] = []
        self._home = home
        self._settings = {**settings, "PORT": str(port)}
        self._server: Server | None = None

    @property
    def socket(self) -> Path:
        """The socket of the embedded Redis."""
        return self._home / "data" / "redis" / "redis.sock"

    def read_log(self) -> str:
        return (self._home / "server.log").read_text()

    async def start(self) -> None:
        """Start the server, again and again if it exits, as an init system does."""
        deadline = time.monotonic() + _START_LIMIT_S
        while True:
            try:
                self._server = await start(self._home, **self._settings)
            except (AssertionError, TimeoutError):  # it exited, or is not ready
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.5)
            else:
                return

    async def kill(self) -> None:
        """Kill all processes of the server, its embedded Redis included."""
        processes = self._list_processes()
        send(processes, signal.SIGKILL)
        if self._server:
            await self._server.process.wait()
        await wait_until_dead(processes)

    async def stop(self) -> None:
        """Stop the server as an init system does, and kill it if that takes too long."""
        assert self._server
        try:
            async with asyncio.timeout(_STOP_LIMIT_S):
                status = await self._server.stop()
            if status:
                self.problems.append(f"a stopped server exited with status {status}")
        except TimeoutError:
            self.problems.append(f"a server did not stop within {_STOP_LIMIT_S} s")
            await self.kill()

    def freeze(self) -> None:
        send(self._list_processes(), signal.SIGSTOP)

    def thaw(self) -> None:
        send(self._list_processes(), signal.SIGCONT)

    async def restart_if_exited(self) -> None:
        """Start the server and note a problem, if it exited by itself."""
        status = self._server and self._server.process.returncode
        if status is not None:
            self.problems.append(f"a server exited by itself, with status {status}")
            await self.start()

    def find_worker(self, number: int) -> list[psutil.Process]:
        """Return the worker of this number; nothing while there is none."""
        workers = [one for one in self._list_processes()[1:] if not is_redis(one)]
        return [workers[number % len(workers)]] if workers else []

    def find_redis(self) -> list[psutil.Process]:
        """Return the embedded Redis; nothing while there is none."""
        return [one for one in self._list_processes() if is_redis(one)]

    def _list_processes(self) -> list[psutil.Process]:
        """Return the supervisor, and then its children by their age."""
        if self._server is None:
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            supervisor = psutil.Process(self._server.process.pid)
            children = supervisor.children(recursive=True)
            return [supervisor, *sorted(children, key=lambda one: one.pid)]
        return []


class EmbeddedNode:
    """The embedded Redis of a server, whose supervisor starts it again."""

    def __init__(self, server: ServerProcess) -> None:
        self.admin = Redis.from_url(f"unix://{server.socket}")
        self._server = server

    async def start(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not self._server.find_redis():
                await asyncio.sleep(0.02)

    async def stop(self, number: int = signal.SIGTERM) -> None:
        processes = self._server.find_redis()
        send(processes, number)
        await wait_until_dead(processes)

    def freeze(self) -> None:
        send(self._server.find_redis(), signal.SIGSTOP)

    def thaw(self) -> None:
        send(self._server.find_redis(), signal.SIGCONT)


class Processes:
    """All processes of an arrangement."""

    def __init__(self, servers: list[ServerProcess], nodes: list[Node], *, embedded: bool) -> None:
        self.servers = servers
        self.nodes = nodes
        # A server and its embedded Redis go down together.
        self._node_locks = (
            [one.lock for one in servers] if embedded else [asyncio.Lock() for _ in nodes]
        )

    async def apply(self, fault: Fault) -> None:
        """Apply a fault, after an earlier one of the same process; return when it is over."""
        locks = self._node_locks if fault.is_of_redis else [one.lock for one in self.servers]
        async with locks[fault.target]:
            if fault.is_of_redis:
                await self._apply_to_redis(fault, self.nodes[fault.target])
            elif fault.kind in (Kind.KILL_SERVER, Kind.STOP_SERVER, Kind.FREEZE_SERVER):
                await self._apply_to_server(fault, self.servers[fault.target])
            else:
                await self._apply_to_worker(fault, self.servers[fault.target])

    async def _apply_to_redis(self, fault: Fault, node: Node) -> None:
        if fault.kind is Kind.FREEZE_REDIS:
            node.freeze()
            await asyncio.sleep(fault.lasts_s)
            node.thaw()
            return
        await node.stop(signal.SIGKILL if fault.kind is Kind.KILL_REDIS else signal.SIGTERM)
        await asyncio.sleep(fault.lasts_s)
        await node.start()

    async def _apply_to_server(self, fault: Fault, server: ServerProcess) -> None:
        await server.restart_if_exited()
        if fault.kind is Kind.FREEZE_SERVER:
            server.freeze()
            await asyncio.sleep(fault.lasts_s)
            server.thaw()
            return
        await (server.kill() if fault.kind is Kind.KILL_SERVER else server.stop())
        await asyncio.sleep(fault.lasts_s)
        await server.start()

    async def _apply_to_worker(self, fault: Fault, server: ServerProcess) -> None:
        workers = server.find_worker(fault.worker)
        number = {
            Kind.KILL_WORKER: signal.SIGKILL,
            Kind.STOP_WORKER: signal.SIGTERM,
            Kind.FREEZE_WORKER: signal.SIGSTOP,
        }[fault.kind]
        send(workers, number)
        if fault.kind is Kind.FREEZE_WORKER:
            await asyncio.sleep(fault.lasts_s)
            send(workers, signal.SIGCONT)


def send(processes: list[psutil.Process], number: int) -> None:
    """Send a signal to those of the processes that still run."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


async def wait_until_dead(processes: list[psutil.Process]) -> None:
    """Return when the processes are dead, whether or not their new parent has noticed it."""
    async with asyncio.timeout(PATIENCE_S):
        while any(map(is_alive, processes)):
            await asyncio.sleep(0.02)


def is_alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def is_redis(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.name() in ("redis-server", "valkey-server")
    return False


@asynccontextmanager
async def run_processes(
    arrangement: Arrangement, upstream_url: str, **settings: str
) -> AsyncIterator[Processes]:
    """Run the servers and their Redis."""
    settings = {
        "OPENAI_BASE_URL": upstream_url,
        "CHAT_MODEL": "m",
        "WORKERS": str(WORKERS),
        "LEASE_S": "1",
        "DRAIN_S": "1",
        "CONTINUE_MAX": "100",
        "RATE_LIMIT": "off",
        "RATE_LIMIT_ADDRESS": "off",
        **settings,
    }
    async with AsyncExitStack() as stack:
        nodes: list[Node] = []
        if arrangement is Arrangement.TWO:
            redis = await stack.enter_async_context(own_redis())
            nodes, settings["REDIS_URL"] = [redis], redis.url
        elif arrangement is Arrangement.CLUSTER:
            url, masters = await stack.enter_async_context(own_cluster())
            nodes, settings["REDIS_URL"] = [*masters], url
        servers = []
        for port in free_ports(SERVERS[arrangement]):
            home = await stack.enter_async_context(private_folder())
            servers.append(ServerProcess(home, port, settings))
            stack.push_async_callback(servers[-1].kill)
        await asyncio.gather(*(server.start() for server in servers))
        is_embedded = not nodes
        if is_embedded:
            nodes = [EmbeddedNode(server) for server in servers]
            for node in nodes:
                stack.push_async_callback(node.admin.aclose)
        yield Processes(servers, nodes, embedded=is_embedded)
