"""A Redis of one test's own, which it may freeze, kill and start again on what its append-only file holds."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.processes import PATIENCE_S, private_folder


class OwnRedis:
    """A `redis-server` on a Unix socket; `admin` is a client for what only the test does."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.url = f"unix://{home / 'redis.sock'}"
        self.admin = Redis.from_url(self.url)
        self._process: asyncio.subprocess.Process

    @property
    def pid(self) -> int:
        return self._process.pid

    async def start(self) -> None:
        """Start, and return when it answers with all that its append-only file holds."""
        self._process = await asyncio.create_subprocess_exec(
            "redis-server", "--port", "0", "--unixsocket", str(self.home / "redis.sock"),
            "--dir", str(self.home), "--save", "", "--appendonly", "yes", "--appendfsync", "always",
            stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        async with asyncio.timeout(PATIENCE_S):
            while not await self._answers():
                await asyncio.sleep(0.01)

    async def _answers(self) -> bool:
        try:
            return bool(await self.admin.ping())
        except RedisConnectionError:  # not there yet, or loading
            return False

    def freeze(self) -> None:
        """Stop it in its tracks: it takes connections and says nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    async def kill(self) -> None:
        """End it with SIGKILL, also while it is frozen."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


@asynccontextmanager
async def own_redis() -> AsyncIterator[OwnRedis]:
    """A Redis with an append-only file that is written before it answers."""
    async with private_folder() as home:
        redis = OwnRedis(home)
        await redis.start()
        try:
            yield redis
        finally:
            await redis.admin.aclose()
            await redis.kill()
