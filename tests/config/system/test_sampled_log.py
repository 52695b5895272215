"""Logging of what clients cause at any rate: at once, and then as a count a minute."""

import asyncio
import logging

import pytest

from config.system import sampled_log
from config.system.sampled_log import SampledLog
from tests.processes import PATIENCE_S


async def test_a_repeated_event_is_logged_once_and_then_counted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampled_log, "INTERVAL_S", 0.05)
    log = SampledLog(logging.getLogger("holdline.test"))
    for number in range(1000):
        log.warn("rejected", f"number {number}")
    log.warn("another")
    async with asyncio.timeout(PATIENCE_S):
        while len(caplog.messages) < 3:
            await asyncio.sleep(0.01)
    assert caplog.messages == [
        "rejected: number 0",
        "another",
        "rejected: 999 more in the last minute",
    ]
    async with asyncio.timeout(PATIENCE_S):
        while log._counts:  # quiet for an interval
            await asyncio.sleep(0.01)
    log.warn("rejected")
    assert caplog.messages[3:] == ["rejected"]
