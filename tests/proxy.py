"""A TCP proxy before a real Redis that does what networks and Redis do on a bad day, when a test says so."""

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

Command = tuple[bytes, ...]
"""A command's name and arguments."""

_CUT = (ConnectionError, asyncio.IncompleteReadError)


class RedisProxy:
    """Passes every command and every reply on, until it is told otherwise.

    `passed` are all commands that went to Redis, `lost` those that ran and whose reply was not passed on.
    """

    def __init__(self, redis_url: str) -> None:
        self.passed: list[Command] = []
        self.lost: set[Command] = set()
        self.url = ""
        self._path = redis_url.removeprefix("unix://")
        self._loses: Callable[[Command], bool] = lambda command: False
        self._holds: Callable[[Command], bool] = lambda command: False
        self._held = asyncio.Event()
        self._says: bytes | None = None
        self._hangs_up = False
        self._flows = asyncio.Event()
        self._flows.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._decode_ref: socket.socket | None = None
        self._listener: asyncio.Server

    def lose_replies(self, to: Callable[[Command], bool]) -> None:
        """Cut the line once for each command that is meant, after it ran and before its reply came back."""
        self._loses = to

    def hold_replies(self, to: Callable[[Command], bool]) -> None:
        """Keep back the replies to commands that are meant, and what follows them, until `recover`."""
        self._holds = to
        self._held.clear()

    def say(self, error: bytes) -> None:
        """Answer every command with an error, such as `LOADING`, that Redis never sees."""
        self._says = b"-" + error + b"\r\n"

    def stall(self) -> None:
        """Take connections and commands, and pass nothing on; what was sent by then arrives late."""
        self._flows.clear()

    def hang_up(self) -> None:
        """Hang up on everyone, and on whoever comes."""
        self._hangs_up = True
        for writer in self._writers:
            writer.transport.abort()

    def refuse(self) -> None:
        """Hang up on everyone and listen no longer: connections are refused."""
        self._listener.close()
        self.hang_up()

    async def recover(self) -> None:
        """Pass everything on again."""
        self._says, self._hangs_up = None, False
        self._flows.set()
        self._held.set()
        if not self._listener.is_serving():
            self._listener = await asyncio.start_server(self._serve, sock=self._bind())

    async def start(self) -> None:
        """Listen on a free port of loopback."""
        self._decode_ref = self._bind()
        self.url = f"redis://127.0.0.1:{self._decode_ref.getsockname()[1]}"
        self._listener = await asyncio.start_server(self._serve, sock=self._bind())

    async def stop(self) -> None:
        """Hang up on everyone and listen no longer."""
        await self.recover()
        self.refuse()
        await self._listener.wait_closed()
        if self._decode_ref:
            self._decode_ref.close()

    def _bind(self) -> socket.socket:
        # A socket that is bound and does not listen keeps the port while connections to it are refused.
        bound = socket.socket()
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(self._decode_ref.getsockname() if self._decode_ref else ("127.0.0.1", 0))
        return bound

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        self._writers.add(to_client)
        try:
            if not self._hangs_up:
                redis, to_redis = await asyncio.open_unix_connection(self._path)
                try:
                    line = _Line(self, redis, to_redis, to_client)
                    async with asyncio.TaskGroup() as group:
                        replies = group.create_task(line.pass_replies())
                        await line.pass_commands(client)
                        replies.cancel()
                finally:
                    to_redis.transport.abort()
        except* (*_CUT, FileNotFoundError):
            pass  # either end hung up, or Redis is not there: the other is hung up on below
        finally:
            self._writers.discard(to_client)
            to_client.transport.abort()


class _Line:
    """One connection through the proxy."""

    def __init__(
        self,
        proxy: RedisProxy,
        redis: asyncio.StreamReader,
        to_redis: asyncio.StreamWriter,
        to_client: asyncio.StreamWriter,
    ) -> None:
        self._proxy = proxy
        self._redis = redis
        self._to_redis = to_redis
        self._to_client = to_client
        self._token = b""
        self._held = False

    async def pass_commands(self, client: asyncio.StreamReader) -> None:
        while True:
            command = await _read_command(client)
            await self._proxy._flows.wait()
            if self._proxy._says is not None:
                self._to_client.write(self._proxy._says)
                continue
            self._held = self._held or self._proxy._holds(command)
            self._to_redis.write(_encode(command))
            self._proxy.passed.append(command)
            if self._proxy._loses(command) and command not in self._proxy.lost:
                # Redis runs a connection's commands in order: when it echoes, this one has run.
                self._token = secrets.token_hex(16).encode()
                self._proxy.lost.add(command)
                self._to_redis.write(_encode((b"ECHO", self._token)))
                await asyncio.Event().wait()

    async def pass_replies(self) -> None:
        swallowed = b""
        while data := await self._redis.read(1 << 16):
            await self._proxy._flows.wait()
            if self._held:
                await self._proxy._held.wait()
            if not self._token:
                self._to_client.write(data)
                continue
            swallowed += data
            if self._token in swallowed:
                break
        raise ConnectionResetError


async def _read_command(reader: asyncio.StreamReader) -> Command:
    count = int((await reader.readuntil(b"\r\n"))[1:])
    parts = []
    for _ in range(count):
        size = int((await reader.readuntil(b"\r\n"))[1:])
        parts.append((await reader.readexactly(size + 2))[:-2])
    return tuple(parts)


def _encode(command: Command) -> bytes:
    return b"*%d\r\n" % len(command) + b"".join(
        b"$%d\r\n%s\r\n" % (len(part), part) for part in command
    )


@asynccontextmanager
async def redis_proxy(redis_url: str) -> AsyncIterator[RedisProxy]:
    """A proxy before the Redis that listens at this `unix://` URL."""
    proxy = RedisProxy(redis_url)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
