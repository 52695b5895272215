"""Texts of any cost are exported in a bounded time, and change nothing but their own message."""

import asyncio
import json
import os
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest

from chat.export import render_process, renderer
from chat.export.markdown import markdown_to_html
from chat.export.renderer import Renderer
from chat.export.rendering import FileFormat, Language, render_message
from tests.exports import export_as
from tests.fake_upstream import ScriptedUpstream
from tests.processes import PATIENCE_S, ROOT
from tests.streams import ask

NESTED = json.loads((ROOT / "tests" / "nesting.json").read_text())
"""Cases of [opening, closing, times, tag, levels of the tag, times that markup was recognised,
text of each recognised opening, of each recognised closing]."""

COSTLY = {
    "labels without an end": "![[[" * 15_000,
    "table with empty cells": "|a" * 8000 + "\n" + "|-" * 8000 + "\n" + "|\n" * 8000,
    "repeated long address": f"[a]: https://{'b' * 50_000}\n\n" + "[a] " * 20_000,
}
PLAIN_NOTE = "This message could not be formatted. It is shown as plain text."


class Depths(HTMLParser):
    """The text of a document, and the maximum depth of each tag in itself."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = ""
        self.maximum: dict[str, int] = {}
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self._open.append(tag)
        self.maximum[tag] = max(self.maximum.get(tag, 0), self._open.count(tag))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def conversation_of(*texts: str) -> list[dict[str, Any]]:
    """Return answers with these texts."""
    return [{"role": "assistant", "content": text, "created": 0} for text in texts]


@pytest.mark.parametrize(
    ("opening", "closing", "times", "tag", "levels", "known", "start", "end"), NESTED
)
def test_deeper_nesting_is_text(
    opening: str, closing: str, times: int, tag: str, levels: int, known: int, start: str, end: str
) -> None:
    found = Depths(markdown_to_html(opening * times + "x" + closing * times))
    assert found.maximum.get(tag, 0) == levels
    left = times - known
    expected = start * known + opening * left + "x" + closing * left + end * known
    assert found.text.strip() == expected.strip()


def test_a_line_after_deep_nesting_begins_an_item_of_an_outer_list() -> None:
    assert markdown_to_html("- " * 40 + "a\n- b").endswith("<li>b</li>\n</ul>\n")


@pytest.mark.parametrize("kind", ["markdown", "html"])
@pytest.mark.parametrize("text", COSTLY.values(), ids=COSTLY)
async def test_a_costly_message_becomes_plain_text_between_its_neighbours(
    text: str, kind: FileFormat
) -> None:
    messages = conversation_of("**before**", text, "**after**")
    start = time.monotonic()
    exported = await Renderer().render(kind, "t", messages, "en")
    assert time.monotonic() - start < 20
    assert text in exported
    if kind == "html":
        assert PLAIN_NOTE in exported
        assert "<strong>before</strong>" in exported
        assert "<strong>after</strong>" in exported


async def test_an_export_that_takes_too_long_ends_with_plain_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(renderer, "_MAX_EXPORT_S", 0)
    exported = await Renderer().render("html", "t", conversation_of("**a**", "**b**"), "en")
    assert exported.count(PLAIN_NOTE) == 2
    assert "**a**" in exported
    assert "**b**" in exported


async def test_the_process_renders_ordinary_messages_like_a_direct_call() -> None:
    messages = conversation_of("**before**", "```\n` open", "| a |\n|-|\n| 汉 |", "", "🦊")
    kinds: tuple[FileFormat, ...] = ("markdown", "html")
    languages: tuple[Language, ...] = ("en", "zh-CN")
    for kind in kinds:
        for language in languages:
            exported = await Renderer().render(kind, "t", messages, language)
            assert exported == export_as(kind, "t", messages, language)


def test_a_plain_text_in_markdown_cannot_close_its_code_block() -> None:
    for text in ("```\n# x", "~~~~~", "`````` `````", "<!--"):
        (message,) = conversation_of(text)
        piece = render_message("markdown", message, is_plain=True)
        tokens = markdown_to_html(piece)
        assert tokens.count("<pre>") == 1
        assert tokens.endswith(f"<p><em>{PLAIN_NOTE}</em></p>\n")


def find_processes() -> list[Path]:
    """Return the rendering processes that this process has started."""
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    name = render_process.__name__.encode()
    return [
        path
        for path in (Path("/proc", child, "cmdline") for child in children)
        if name in path.read_bytes()
    ]


async def test_the_process_gets_what_python_may_need_and_no_secret(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nenv > {tmp_path}/found\nexec {sys.executable} "$@"\n')
    script.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(script))
    needed = {name: str(tmp_path) for name in ("LD_LIBRARY_PATH", "TMPDIR")}
    for name, value in {**needed, "OPENAI_API_KEY": "secret", "REDIS_URL": "secret"}.items():
        monkeypatch.setenv(name, value)
    exported = await Renderer().render("html", "t", conversation_of("**a**"), "en")
    assert "<strong>a</strong>" in exported
    found = (tmp_path / "found").read_text()
    assert {f"{name}={value}" for name, value in needed.items()} <= set(found.splitlines())
    assert "secret" not in found


@pytest.mark.parametrize("kind", ["markdown", "html"])
@pytest.mark.parametrize("mode", [None, 0o600])
async def test_without_a_process_an_export_is_plain_text_and_the_log_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path,
    kind: FileFormat, mode: int | None,
) -> None:  # fmt: skip
    program = tmp_path / "python"
    if mode is not None:
        program.touch(mode)
    monkeypatch.setattr(sys, "executable", str(program))
    exported = await Renderer().render(kind, "t", conversation_of("**a**", "**b**"), "en")
    assert exported.count(PLAIN_NOTE) == 2
    assert "**a**" in exported
    assert "**b**" in exported
    (record,) = caplog.records
    assert record.getMessage().startswith("No process could be started: the export is plain text")


async def test_the_process_ends_when_its_export_is_cancelled() -> None:
    messages = conversation_of(*[COSTLY["labels without an end"]] * 5)
    export = asyncio.create_task(Renderer().render("html", "t", messages, "en"))
    async with asyncio.timeout(PATIENCE_S):
        while not find_processes():
            await asyncio.sleep(0.01)
    export.cancel()
    with pytest.raises(asyncio.CancelledError):
        await export
    assert find_processes() == []


def test_the_process_ends_when_its_worker_is_gone() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", render_process.__name__],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin
    (message,) = conversation_of(COSTLY["labels without an end"])
    request = json.dumps(["html", message, "en"]).encode()
    process.stdin.write(render_process.LENGTH.pack(len(request)) + request)
    process.stdin.close()
    assert process.wait(PATIENCE_S) != 0
    assert process.stdout
    process.stdout.close()


async def test_a_second_export_of_a_session_is_rejected_while_the_first_one_runs(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    events = await ask(client, upstream, question, COSTLY["labels without an end"])
    path = f"/api/conversations/{json.loads(events[0].data)['conversation']}/export"
    responses = await asyncio.gather(
        *(client.get(path, params={"format": "html"}, timeout=PATIENCE_S) for _ in range(2))
    )
    first, second = sorted(responses, key=lambda response: response.status_code)
    assert (first.status_code, second.status_code) == (200, 429)
    assert PLAIN_NOTE in first.text
    assert second.json()["error"]["type"] == "rate_limited"
    assert second.headers["retry-after"] == "1"
    assert (await client.get(path)).status_code == 200
