"""Start real proxies in front of a server, and reload them."""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.processes import PATIENCE_S, free_ports, private_folder
from tests.proxies.configurations import KINDS, Site

PATH = os.environ["PATH"] + os.pathsep + "/usr/sbin"
"""Debian installs nginx, HAProxy and Apache httpd in /usr/sbin."""


@dataclass
class Front:
    """A running proxy."""

    name: str
    url: str
    plain_url: str
    process: asyncio.subprocess.Process
    certificate: Path
    _ports: set[int]
    _reload: Sequence[str] | signal.Signals
    behind: list["Front"] = field(default_factory=list)
    """Proxies between this one and the origin."""

    async def reload(self) -> None:
        """Reload the configuration; return when only the new processes accept connections."""
        for front in self.behind:
            await front.reload()
        if not isinstance(self._reload, signal.Signals):
            assert await (await asyncio.create_subprocess_exec(*self._reload)).wait() == 0
            return
        before = self._find_listeners()
        assert before
        self.process.send_signal(self._reload)
        async with asyncio.timeout(PATIENCE_S):
            while not (now := self._find_listeners()) or now & before:
                await asyncio.sleep(0.02)

    def _find_listeners(self) -> set[int]:
        """Return the ids of the workers that accept connections."""
        found = set()
        for child in psutil.Process(self.process.pid).children(recursive=True):
            try:
                sockets = child.net_connections("tcp")
            except psutil.NoSuchProcess:
                continue
            if any(
                one.status == psutil.CONN_LISTEN and one.laddr.port in self._ports
                for one in sockets
            ):
                found.add(child.pid)
        return found


@asynccontextmanager
async def start_front(
    name: str,
    certificate: Path,
    *origins: int,
    edit: tuple[str, str] | None = None,
) -> AsyncIterator[Front]:
    """Run one of FRONTS, which forwards to these ports; `edit` replaces a part of its file."""
    async with AsyncExitStack() as stack:
        if name == "nginx-nginx":
            inner = await stack.enter_async_context(
                start_front("nginx", certificate, *origins, edit=edit)
            )
            port = int(inner.url.rpartition(":")[2])
            to_inner = (f"http://127.0.0.1:{port}", f"https://localhost:{port}")
            outer = await stack.enter_async_context(
                start_front("nginx-default", certificate, port, edit=to_inner)
            )
            outer.name = name
            outer.behind.append(inner)
            yield outer
            return
        home = await stack.enter_async_context(private_folder())
        home.chmod(0o755)  # for workers that run as another user
        ports = free_ports(2)
        kind = KINDS[name]
        command = kind.write(Site(home, ports[0], ports[1], origins, certificate, edit))
        environment = {"PATH": PATH, "HOME": str(home), "XDG_DATA_HOME": str(home)}
        output = home / "output"
        with output.open("wb") as sink:
            process = await asyncio.create_subprocess_exec(
                *command, env=environment, cwd=home, stdout=sink, stderr=sink
            )
        reload = kind.reload or ["caddy", "reload", "--force", *command[2:]]
        try:
            await _wait_for_ports(process, ports, output)
            yield Front(
                name,
                f"https://localhost:{ports[1]}",
                f"http://localhost:{ports[0]}",
                process,
                certificate,
                set(ports),
                reload,
            )
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def _wait_for_ports(
    process: asyncio.subprocess.Process, ports: Sequence[int], output: Path
) -> None:
    async with asyncio.timeout(PATIENCE_S):
        for port in ports:
            while True:
                assert process.returncode is None, output.read_text()
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.02)
                else:
                    writer.close()
                    break


def find_missing(name: str) -> str | None:
    """Return the program that an arrangement needs and that is not installed."""
    program = KINDS[name.split("-")[0]].program
    return next((one for one in (program, "curl") if not shutil.which(one, path=PATH)), None)
