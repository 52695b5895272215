"""Render the messages of exports within a time limit, without delaying the event loop."""

import asyncio
import json
import logging
import os
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from chat.export import render_process, rendering
from chat.export.render_process import LENGTH
from chat.export.rendering import FileFormat, Language, Message
from config.system.environment import read_harmless_variables

logger = logging.getLogger("holdline.export")

_MAX_PROCESSES = 2
"""Exports that a worker renders at a time; others wait."""

_MAX_EXPORT_S = 10.0
"""Time to render the messages of one export; the others are plain text."""


class Renderer:
    """Renders exports, each in a process that lives as long as the export."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(_MAX_PROCESSES)

    async def render(
        self, kind: FileFormat, title: str, messages: Sequence[Message], language: Language
    ) -> str:
        """Return the file; a message that takes too long or cannot be rendered is plain text."""
        async with self._slots, _Process() as process:
            loop = asyncio.get_running_loop()
            deadline = loop.time() + _MAX_EXPORT_S
            pieces = []
            for message in messages:
                piece = None
                if loop.time() < deadline:
                    piece = await process.render(kind, message, language)
                if piece is None:
                    piece = rendering.render_message(kind, message, language, is_plain=True)
                pieces.append(piece)
        return rendering.render_file(kind, title, pieces, language)


class _Process:
    """Runs render_process.py, and starts it again when a message has ended it."""

    def __init__(self) -> None:
        self._child: asyncio.subprocess.Process | None = None
        self._can_start = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._end()

    async def render(self, kind: FileFormat, message: Message, language: Language) -> str | None:
        """Return the piece of a message; None if the process has ended or could not render it."""
        request = json.dumps([kind, message, language]).encode()
        child = self._child = self._child or await self._start()
        if child is None:
            return None
        assert child.stdin
        assert child.stdout
        try:
            child.stdin.write(LENGTH.pack(len(request)) + request)
            await child.stdin.drain()
            (length,) = LENGTH.unpack(await child.stdout.readexactly(LENGTH.size))
            piece: str | None = json.loads(await child.stdout.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            logger.warning("Rendering a message of %d bytes was stopped", len(request))
            await self._end()
            return None
        return piece

    async def _start(self) -> asyncio.subprocess.Process | None:
        """Return a new process; None if one could not be started."""
        if not self._can_start:
            return None
        try:
            return await _start()
        except OSError as error:
            logger.error("No process could be started: the export is plain text (%s)", error)
            self._can_start = False
            return None

    async def _end(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        if child.returncode is None:
            child.kill()
        await child.wait()


async def _start() -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        render_process.__name__,
        env=read_harmless_variables() | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,  # Ctrl+C in a terminal is for the supervisor
    )
