"""A Redis for one test, which the test may freeze, kill and restart with its append-only file."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.processes import PATIENCE_S, cluster_options, form_cluster, private_folder


class OwnRedis:
    """A `redis-server` on a Unix socket; `admin` is a client for commands of the test itself."""

    def __init__(self, home: Path, *options: str) -> None:
        self.home = home
        self._options = options
        self.url = f"unix://{home / 'redis.sock'}"
        self.admin = Redis.from_url(self.url)
        self._process: asyncio.subprocess.Process

    @property
    def pid(self) -> int:
        return self._process.pid

    async def start(self) -> None:
        """Start Redis; return when it has loaded its append-only file."""
        self._process = await asyncio.create_subprocess_exec(
            "redis-server", "--port", "0", "--unixsocket", str(self.home / "redis.sock"),
            "--dir", str(self.home), "--save", "", "--appendonly", "yes", "--appendfsync", "always",
            *self._options,
            stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        async with asyncio.timeout(PATIENCE_S):
            while not await self._is_ready():
                await asyncio.sleep(0.01)

    async def _is_ready(self) -> bool:
        try:
            return bool(await self.admin.ping())
        except RedisConnectionError:  # starting, or loading its data
            return False

    def freeze(self) -> None:
        """Pause the process: it accepts connections and does not reply."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Resume the process."""
        os.kill(self.pid, signal.SIGCONT)

    async def kill(self) -> None:
        """Kill the process with SIGKILL, even if it is frozen."""
        await self.stop(signal.SIGKILL)

    async def stop(self, number: int = signal.SIGTERM) -> None:
        """Send the process a signal that ends it."""
        if self._process.returncode is None:
            self._process.send_signal(number)
        await self._process.wait()


@asynccontextmanager
async def own_cluster() -> AsyncIterator[tuple[str, list[OwnRedis]]]:
    """Run a Redis Cluster of three masters; yield its URL and the masters."""
    async with AsyncExitStack() as stack:
        ports = cluster_options(3)
        nodes = [await stack.enter_async_context(own_redis(*options)) for _, _, options in ports]
        addresses = [(port, bus) for port, bus, _ in ports]
        yield await form_cluster([node.admin for node in nodes], addresses), nodes


@asynccontextmanager
async def own_redis(*options: str) -> AsyncIterator[OwnRedis]:
    """Run a Redis that writes every command to its append-only file before it replies."""
    async with private_folder() as home:
        redis = OwnRedis(home, *options)
        await redis.start()
        try:
            yield redis
        finally:
            await redis.admin.aclose()
            await redis.kill()
