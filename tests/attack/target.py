"""The server under attack, and what every vector needs: clients, raw requests, measurements."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http.cookiejar import Cookie, DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
from redis.asyncio import Redis

from sessions import keys
from tests.fake_upstream import Exchange, ScriptedUpstream
from tests.processes import PATIENCE_S, Server, private_folder, start
from tests.streams import STREAM

KEY = "sk-attack-secret-key-0123456789abcdef"
"""The upstream's key: no client and no log may see it."""

NO_LIMITS = {"RATE_LIMIT": "off", "RATE_LIMIT_ADDRESS": "off", "TURNS_MAX": "off"}
"""Settings for a vector that is about something else than rates."""

UNTRUSTED = {"TRUSTED_PROXIES": "192.0.2.1"}
"""Settings that make loopback an untrusted peer."""

BROWSER = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/605.1.15"
_MAX_AT_ONCE = 50

Respond = Callable[[Exchange], Coroutine[Any, Any, None]]


async def answer(exchange: Exchange) -> None:
    """Answer a request to the upstream with one short sentence."""
    with contextlib.suppress(ConnectionError):
        await exchange.answer("An answer.")


async def hold(exchange: Exchange) -> None:
    """Begin an answer that never ends."""
    with contextlib.suppress(ConnectionError):
        await exchange.send_text("An answer ")
        await exchange.closed.wait()


@dataclass(frozen=True)
class Outcome:
    """The result of a vector: whether the defence held, and a description of the events."""

    held: bool
    happened: str


@dataclass
class Target:
    """The server under attack. One that the operator runs (`--url`) has no other fields."""

    url: str
    upstream: ScriptedUpstream = field(default_factory=ScriptedUpstream)
    respond: Respond = answer
    """How the upstream answers."""
    _server: Server | None = None
    _redis: Any = None

    @property
    def server(self) -> Server:
        assert self._server, "this vector needs its own server"
        return self._server

    @property
    def redis(self) -> Any:
        """A client of the embedded Redis."""
        assert self._redis, "this vector needs its own server"
        return self._redis

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or 80

    def open_client(self, **options: Any) -> httpx.AsyncClient:
        """Return a client without a cookie."""
        return httpx.AsyncClient(
            **{"base_url": self.url, "timeout": 30, "verify": False, **options}
        )

    def open_uncookied_client(self, **options: Any) -> httpx.AsyncClient:
        """Return a client that never sends a cookie."""
        client = self.open_client(**options)
        client.cookies.jar.set_policy(_NoCookies())
        return client

    def list_workers(self) -> list[psutil.Process]:
        children = psutil.Process(self.server.process.pid).children()
        return [one for one in children if "redis" not in one.name()]

    def count_resident_bytes(self) -> int:
        """Return the memory of all workers."""
        return sum(int(worker.memory_info().rss) for worker in self.list_workers())

    async def count_running(self) -> int:
        """Return the number of entries in the index of running turns."""
        return int(await self.redis.zcard(keys.running()))

    async def count_key_bytes(self) -> int:
        """Return the memory of all keys, and not that of Redis itself or of its connections."""
        names = [name async for name in self.redis.scan_iter(count=1000)]
        return sum([int(await self.redis.memory_usage(name) or 0) for name in names])

    async def count_redis_bytes(self) -> int:
        return int((await self.redis.info("memory"))["used_memory"])


class _NoCookies(DefaultCookiePolicy):
    """A policy that stores no cookie."""

    def set_ok(self, cookie: Cookie, request: Any) -> bool:
        return False


@asynccontextmanager
async def own_target(*wrapper: str, **settings: str) -> AsyncIterator[Target]:
    """Run a server with its embedded Redis and a fake upstream; defaults unless set otherwise."""
    target = Target("")

    async def respond(exchange: Exchange) -> None:
        await target.respond(exchange)

    target.upstream = ScriptedUpstream(respond)
    base_url = await target.upstream.start()
    settings = {
        "OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": KEY, "CHAT_MODEL": "m",
        "TURNS_MAX": "4,40,400",  # the default; `start` switches it off
        **settings,
    }  # fmt: skip
    try:
        async with private_folder() as home:
            target._server = await start(home, *wrapper, **settings)
            target.url = target._server.url
            target._redis = Redis.from_url(f"unix://{home}/data/redis/redis.sock")
            try:
                yield target
            finally:
                await target._redis.aclose()
                await target._server.stop()
    finally:
        await target.upstream.stop()


async def begin(client: httpx.AsyncClient, message: str, **options: Any) -> int:
    """Ask a question, read the first bytes, and leave. Return the status; 0 if nothing began."""
    params = {"message": message, **options.pop("params", {})}
    async with client.stream("GET", STREAM, params=params, **options) as response:
        if response.status_code != 200:
            return response.status_code
        async for chunk in response.aiter_text():
            if "event: turn" in chunk:
                return 200
        return 0


async def is_served(target: Target, **options: Any) -> bool:
    """Return whether another user's question is answered, within ten seconds."""
    target.respond = answer
    with contextlib.suppress(httpx.HTTPError, TimeoutError):
        async with asyncio.timeout(10), target.open_client(**options) as client:
            response = await client.get(STREAM, params={"message": "Are you there?"})
            return "event: end" in response.text
    return False


async def gather_bounded(work: list[Coroutine[Any, Any, Any]], at_once: int = _MAX_AT_ONCE) -> Any:
    """Run coroutines, a limited number at a time; return their results, errors among them."""
    room = asyncio.Semaphore(at_once)

    async def run(one: Coroutine[Any, Any, Any]) -> Any:
        async with room:
            return await one

    return await asyncio.gather(*map(run, work), return_exceptions=True)


async def exchange_raw(target: Target, *parts: bytes, pause_s: float = 0) -> bytes:
    """Send bytes on a new connection; return what arrives in two seconds, or until it closes."""
    reader, writer = await asyncio.open_connection(*target.address)
    received = b""
    try:
        with contextlib.suppress(ConnectionError, TimeoutError):
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(pause_s)
            async with asyncio.timeout(2):
                while data := await reader.read(65536):
                    received += data
    finally:
        writer.transport.abort()
    return received


def status_of(response: bytes) -> int:
    """Return the status of a raw response; 0 if the server closed without one."""
    return int(response[9:12]) if response.startswith(b"HTTP/1.") else 0


@asynccontextmanager
async def measure_delay(target: Target) -> AsyncIterator[list[float]]:
    """Ask `/healthz` all the time; the list gets each delay in seconds."""
    delays: list[float] = []

    async def probe() -> None:
        async with target.open_client() as client:
            while True:
                begun = time.monotonic()
                try:
                    await client.get("/healthz")
                finally:
                    delays.append(time.monotonic() - begun)
                await asyncio.sleep(0.02)

    probing = asyncio.create_task(probe())
    try:
        yield delays
    finally:
        await asyncio.sleep(0.1)
        probing.cancel()
        await asyncio.wait([probing])


async def wait_until(is_true: Callable[[], Any], limit_s: float = PATIENCE_S) -> float:
    """Return the time until a condition holds, or `limit_s` if it does not until then."""
    begun = time.monotonic()
    while (passed := time.monotonic() - begun) < limit_s:
        result = is_true()
        if await result if asyncio.iscoroutine(result) else result:
            return passed
        await asyncio.sleep(0.05)
    return limit_s


def summarise(statuses: list[Any]) -> str:
    """Return how often each status, or each kind of error, occurred."""
    named = [one if isinstance(one, int | str) else type(one).__name__ for one in statuses]
    return ", ".join(f"{named.count(one)}x {one}" for one in sorted(set(named), key=str))
