"""Text passes the gate after its check, in order, or not at all."""

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.errors import UpstreamError
from chat.log.records import Kind
from chat.turns.moderation.gate import MAX_WAITING, Gate
from chat.turns.moderation.moderator import Moderator

TEXT = Kind.TEXT
SENTENCES = [f"This is sentence {number}, which has some more words. " for number in range(60)]


class Checks:
    """Stands for the moderator: each check waits until the test allows it, then passes or not."""

    def __init__(self, flagged: str = "nothing") -> None:
        self.texts: list[str] = []
        self.passed: list[str] = []
        self.running = 0
        self.may_end = asyncio.Semaphore(0)
        self._flagged = flagged

    async def check_answer(self, texts: Sequence[str]) -> None:
        self.texts += texts
        self.running += 1
        assert self.running == 1
        await self.may_end.acquire()
        self.running -= 1
        if any(self._flagged in text for text in texts):
            raise UpstreamError("moderated", "flagged")
        self.passed += texts


class Response:
    """A response behind a gate, with the text that was released and its end."""

    def __init__(self, checks: Checks) -> None:
        self.released = ""
        self.resumed = 0
        self.failure: Exception | None = None
        self.gate = Gate(
            cast(Moderator, checks),
            {},
            release=self._release,
            resume=self._resume,
            fail=self._fail,
        )

    def _release(self, kind: Kind, text: str) -> None:
        self.released += text

    def _resume(self) -> None:
        self.resumed += 1

    def _fail(self, failure: Exception) -> None:
        self.failure = failure


async def settle() -> None:
    """Let the tasks run until each waits."""
    for _ in range(5):
        await asyncio.sleep(0)


@given(st.lists(st.sampled_from(["feed", "pass"]), max_size=80))
async def test_released_text_is_always_covered_by_passed_checks(steps: list[str]) -> None:
    checks = Checks()
    response = Response(checks)
    fed = ""
    sentences = iter(SENTENCES * 2)
    async with response.gate as gate:
        for step in steps:
            if step == "feed":
                sentence = next(sentences)
                fed += sentence
                gate.feed(TEXT, sentence)
            elif checks.running:
                checks.may_end.release()
            await settle()
            assert fed.startswith(response.released)
            covered = 0
            for text in checks.passed:  # each passed text continues the one before
                at = fed.index(text)
                assert at <= covered
                covered = max(covered, at + len(text))
            assert len(response.released) == covered
        draining = asyncio.create_task(gate.drain())
        while not draining.done():
            checks.may_end.release()
            await asyncio.sleep(0)
        await draining
    assert response.released == fed


@pytest.mark.parametrize("number", [0, 1, 7, 20, 59])
async def test_a_flagged_window_ends_the_response_and_releases_nothing_more(number: int) -> None:
    checks = Checks(flagged=f"sentence {number},")
    checks.may_end = asyncio.Semaphore(1000)
    response = Response(checks)
    async with response.gate as gate:
        for sentence in SENTENCES:
            gate.feed(TEXT, sentence)
            await settle()
        with pytest.raises(UpstreamError, match="flagged"):
            await gate.drain()
    assert "".join(SENTENCES[:number]).startswith(response.released)
    # A later window would be checked with the flagged text before it, and is not checked at all.
    assert f"sentence {number}," in checks.texts[-1]
    assert isinstance(response.failure, UpstreamError)


async def test_text_whose_check_is_pending_is_dropped_when_the_turn_is_stopped() -> None:
    checks = Checks()
    response = Response(checks)
    async with response.gate as gate:
        gate.feed(TEXT, SENTENCES[0])
        await settle()
        assert checks.running == 1
    checks.may_end.release()
    await settle()
    assert response.released == ""
    assert checks.passed == []


async def test_a_full_gate_resumes_the_response_once_when_it_has_room() -> None:
    checks = Checks()
    response = Response(checks)
    async with response.gate as gate:
        gate.feed(TEXT, SENTENCES[0])
        while not gate.is_full:
            gate.feed(TEXT, "more words. " * 30)
        for _ in range(MAX_WAITING):
            assert bool(response.resumed) is not gate.is_full
            await settle()
            checks.may_end.release()
            await settle()
        assert response.resumed == 1
