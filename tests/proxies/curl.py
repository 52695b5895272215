"""Read a response with curl while it arrives."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from tests.processes import PATIENCE_S
from tests.proxies.fronts import Front

PROTOCOLS = ("http1.1", "http2")


class Response:
    """A response that arrives: its status, its headers and the bytes of its body so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.body = b""
        self.status = 0
        self.protocol = ""
        self.headers: dict[str, str] = {}
        self._received = asyncio.Condition()
        self._is_over = False

    async def receive(self) -> None:
        """Receive the response until its end, and wake the readers for every piece."""
        assert self.process.stdout is not None
        while data := await self.process.stdout.read(1 << 16):
            async with self._received:
                self.body += data
                while self.status < 200 and b"\r\n\r\n" in self.body:  # `100 Continue` precedes
                    head, _, self.body = self.body.partition(b"\r\n\r\n")
                    self._read_head(head.decode())
                self._received.notify_all()
        async with self._received:
            self._is_over = True
            self._received.notify_all()

    def _read_head(self, head: str) -> None:
        status, *lines = head.split("\r\n")
        self.protocol, code, *_ = status.split(" ")
        self.status = int(code)
        for line in lines:
            name, _, value = line.partition(":")
            self.headers[name.lower()] = value.strip()

    @property
    def cookie(self) -> str:
        return self.headers["set-cookie"].partition(";")[0]

    async def read_until(self, reached: Callable[[bytes], bool]) -> None:
        """Return when the body satisfies the condition; raise if the response ends before."""
        async with asyncio.timeout(PATIENCE_S), self._received:
            await self._received.wait_for(
                lambda: self._is_over or (self.status >= 200 and reached(self.body))
            )
        assert reached(self.body), f"the response ended: {self.status} {self.body.decode()}"

    async def read_to_end(self) -> int:
        """Return curl's exit status, which is 0 for a complete response."""
        async with asyncio.timeout(PATIENCE_S), self._received:
            await self._received.wait_for(lambda: self._is_over)
            return await self.process.wait()


@asynccontextmanager
async def request(
    front: Front,
    protocol: str,
    path: str,
    headers: dict[str, str] | None = None,
    body: Any = None,
    url: str = "",
) -> AsyncIterator[Response]:
    """Send a request, a POST if there is a JSON body, and yield its response as it arrives.

    `url` is used instead of the proxy's https address.
    """
    lines = {"Accept-Encoding": "gzip, deflate, br", **(headers or {})}
    if body is not None:
        lines["Content-Type"] = "application/json"
    process = await asyncio.create_subprocess_exec(
        "curl", "-4", "-sS", "-i", "-N", f"--{protocol}",
        "--cacert", str(front.certificate / "ca.pem"),
        *(part for name, value in lines.items() for part in ("-H", f"{name}: {value}")),
        *(("--data-binary", "@-") if body is not None else ()),
        (url or front.url) + path,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    if body is not None:
        process.stdin.write(json.dumps(body).encode())
        await process.stdin.drain()
    process.stdin.close()
    response = Response(process)
    receiving = asyncio.create_task(response.receive())
    try:
        yield response
    finally:
        if process.returncode is None:
            process.kill()
        await receiving
        await process.wait()
