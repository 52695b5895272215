"""A TCP proxy in front of a real Redis, which injects faults of networks and of Redis."""

import asyncio
import secrets
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

Command = tuple[bytes, ...]
"""The name and arguments of a Redis command."""

_DISCONNECTED = (ConnectionError, asyncio.IncompleteReadError)


class RedisProxy:
    """Forward every command and reply, except where a test injects a fault.

    `passed` lists all commands that were forwarded to Redis. `lost` holds those that ran and whose
    reply was dropped. `exchanges` groups the forwarded commands by round trip: those of a
    connection between two replies. With a `tls` context, the proxy speaks TLS to clients.
    """

    def __init__(self, redis_url: str, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.passed: list[Command] = []
        self.lost: set[Command] = set()
        self.exchanges: list[list[Command]] = []
        self.holds_reply = asyncio.Event()
        """Set once Redis has sent a reply that is delayed."""
        self.url = ""
        self._path = redis_url.removeprefix("unix://")
        self._drops_reply: Callable[[Command], bool] = lambda command: False
        self._delays_reply: Callable[[Command], bool] = lambda command: False
        self._released = asyncio.Event()
        self._error: bytes | None = None
        self._closes_connections = False
        self._forwarding = asyncio.Event()
        self._forwarding.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._address_holder: socket.socket | None = None
        self._listener: asyncio.Server

    def lose_replies(self, to: Callable[[Command], bool]) -> None:
        """Close the connection after a matching command has run, instead of forwarding its reply.

        Each command is affected once.
        """
        self._drops_reply = to

    def hold_replies(self, to: Callable[[Command], bool]) -> None:
        """Delay replies to matching commands, and all later replies, until `recover`."""
        self._delays_reply = to
        self.holds_reply.clear()
        self._released.clear()

    def reply_with_error(self, error: bytes) -> None:
        """Reply to every command with an error, such as `LOADING`, without forwarding it."""
        self._error = b"-" + error + b"\r\n"

    def stall(self) -> None:
        """Accept connections and commands, and forward nothing until `recover`."""
        self._forwarding.clear()

    def close_connections(self) -> None:
        """Close all connections, and each new one when it has been accepted."""
        self._closes_connections = True
        for writer in self._writers:
            writer.transport.abort()

    def refuse_connections(self) -> None:
        """Close all connections and stop listening: new connections are refused."""
        self._listener.close()
        self.close_connections()

    async def recover(self) -> None:
        """Forward everything again."""
        self._error, self._closes_connections = None, False
        self._forwarding.set()
        self._released.set()
        if not self._listener.is_serving():
            self._listener = await asyncio.start_server(
                self._serve, sock=self._bind(), ssl=self._tls
            )

    async def start(self) -> None:
        """Listen on a free loopback port."""
        self._address_holder = self._bind()
        port = self._address_holder.getsockname()[1]
        self.url = f"rediss://localhost:{port}" if self._tls else f"redis://127.0.0.1:{port}"
        self._listener = await asyncio.start_server(self._serve, sock=self._bind(), ssl=self._tls)

    async def stop(self) -> None:
        """Close all connections and stop listening."""
        await self.recover()
        self.refuse_connections()
        await self._listener.wait_closed()
        if self._address_holder:
            self._address_holder.close()

    def _bind(self) -> socket.socket:
        # A bound socket that does not listen reserves the port while connections are refused.
        bound = socket.socket()
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(self._address_holder.getsockname() if self._address_holder else ("127.0.0.1", 0))
        return bound

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        self._writers.add(to_client)
        try:
            if not self._closes_connections:
                redis, to_redis = await asyncio.open_unix_connection(self._path)
                try:
                    connection = _Connection(self, redis, to_redis, to_client)
                    async with asyncio.TaskGroup() as group:
                        replies = group.create_task(connection.forward_replies())
                        await connection.forward_commands(client)
                        replies.cancel()
                finally:
                    to_redis.transport.abort()
        except* (*_DISCONNECTED, FileNotFoundError):
            pass  # one end closed, or Redis does not run: `finally` closes the other end
        finally:
            self._writers.discard(to_client)
            to_client.transport.abort()


class _Connection:
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
        self._delayed = False
        self._exchange: list[Command] | None = None

    async def forward_commands(self, client: asyncio.StreamReader) -> None:
        while True:
            command = await _read_command(client)
            await self._proxy._forwarding.wait()
            if self._proxy._error is not None:
                self._to_client.write(self._proxy._error)
                continue
            self._delayed = self._delayed or self._proxy._delays_reply(command)
            self._to_redis.write(_encode(command))
            self._proxy.passed.append(command)
            if self._exchange is None:
                self._exchange = []
                self._proxy.exchanges.append(self._exchange)
            self._exchange.append(command)
            if self._proxy._drops_reply(command) and command not in self._proxy.lost:
                # Redis runs the commands of a connection in order: an echo proves that this ran.
                self._token = secrets.token_hex(16).encode()
                self._proxy.lost.add(command)
                self._to_redis.write(_encode((b"ECHO", self._token)))
                await asyncio.Event().wait()

    async def forward_replies(self) -> None:
        dropped = b""
        while data := await self._redis.read(1 << 16):
            self._exchange = None
            await self._proxy._forwarding.wait()
            if self._delayed:
                self._proxy.holds_reply.set()
                await self._proxy._released.wait()
            if not self._token:
                self._to_client.write(data)
                continue
            dropped += data
            if self._token in dropped:
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
async def redis_proxy(
    redis_url: str, tls: ssl.SSLContext | None = None
) -> AsyncIterator[RedisProxy]:
    """Run a proxy in front of the Redis at this `unix://` URL."""
    proxy = RedisProxy(redis_url, tls)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
