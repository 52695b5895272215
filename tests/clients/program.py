"""Run a program of docs/clients.md, and read what it prints while it runs."""

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.processes import PATIENCE_S, ROOT

PACKAGES = ROOT / "tests" / "clients"
"""Node finds the packages of a program on stdin from its working directory."""

BIN = ROOT / ".venv-clients" / "bin"

_AUTHORITIES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
"""The variables of OpenSSL, requests and Node that name a file of trusted authorities."""


class Program:
    """A running program. `output` is the text that it has printed so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.output = ""
        self.errors = b""
        self._printed = asyncio.Condition()
        self._is_over = False

    async def read(self) -> None:
        """Read what the program prints until it ends, and wake those who wait for it."""
        assert self.process.stdout is not None
        printed = b""
        while data := await self.process.stdout.read(1 << 16):
            printed += data
            async with self._printed:
                self.output = printed.decode(errors="ignore")
                self._printed.notify_all()
        async with self._printed:
            self._is_over = True
            self._printed.notify_all()

    async def read_errors(self) -> None:
        assert self.process.stderr is not None
        self.errors = await self.process.stderr.read()

    async def wait_for_output(self, text: str) -> None:
        """Return when the program has printed exactly this text; raise if it ends before."""
        async with asyncio.timeout(PATIENCE_S), self._printed:
            await self._printed.wait_for(lambda: self._is_over or self.output == text)
        assert self.output == text

    async def wait_for_end(self) -> int:
        """Return the exit status."""
        async with asyncio.timeout(PATIENCE_S), self._printed:
            await self._printed.wait_for(lambda: self._is_over)
            return await self.process.wait()


def find_interpreter(language: str) -> list[str]:
    """Return the command that runs a program on stdin."""
    if language == "python":
        return [str(BIN / "python"), "-"]
    if language == "js":
        node = shutil.which("node", path=f"{os.environ['PATH']}:{Path(sys.executable).parent}")
        assert node, "Node is missing; `make test-clients` installs it"
        return [node, "--input-type=module", "-"]
    return ["sh", "-e"]


@asynccontextmanager
async def running(language: str, program: str, home: Path) -> AsyncIterator[Program]:
    """Run a program, which trusts `ca.pem` in its home, and yield it; kill it afterwards."""
    environment = {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(home), "LANG": "C.UTF-8"}
    environment |= dict.fromkeys(_AUTHORITIES, str(home / "ca.pem"))
    process = await asyncio.create_subprocess_exec(
        *find_interpreter(language),
        cwd=PACKAGES if language == "js" else home,
        env=environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(program.encode())
    process.stdin.close()
    started = Program(process)
    reading = asyncio.gather(started.read(), started.read_errors())
    try:
        yield started
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reading
