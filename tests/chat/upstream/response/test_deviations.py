"""Each deviation gives the complete text or a clear failure, and causes no needless request."""

import json
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from tests.chat.upstream.response.deviations import CONTINUE_MAX, ROWS, Row
from tests.processes import Server, holdline
from tests.raw_upstream import RawUpstream, raw_upstream
from tests.streams import read, text_of


@pytest_asyncio.fixture(scope="module")
async def raw() -> AsyncIterator[RawUpstream]:
    async with raw_upstream() as upstream:
        yield upstream


@pytest_asyncio.fixture(scope="module")
async def lone_server(raw: RawUpstream) -> AsyncIterator[Server]:
    """Yield a server with one upstream."""
    async with holdline(
        OPENAI_BASE_URL=raw.base_url,
        CHAT_MODEL="m",
        RATE_LIMIT="off",
        CONTINUE_MAX=str(CONTINUE_MAX),
        UPSTREAM_TIMEOUT_S="5",
    ) as server:
        yield server


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_a_deviation_gives_the_text_or_a_clear_failure(
    lone_server: Server, raw: RawUpstream, row: Row
) -> None:
    case = f"case{ROWS.index(row)}"
    raw.add(case, *row.answers)
    async with httpx.AsyncClient(base_url=lone_server.url, timeout=60) as client:
        events = await read(client, message=f"{case} {row.name}")
        reasoning = "".join(one.data for one in events if one.event == "reasoning")
        usage = json.loads(next(one.data for one in events if one.event == "usage"))
        last = events[-1]
        assert (text_of(events), reasoning) == (row.text, row.reasoning)
        if last.event == "failed":
            failure = json.loads(last.data)
            assert failure["type"] == row.ending
            assert row.message in failure["message"]
            assert "<" not in failure["message"]
        else:
            assert (last.event, last.data) == ("end", row.text)
            assert usage["finish_reason"] == row.ending
            assert not row.message
        assert usage.items() >= row.usage.items()
        is_reported = {"prompt_tokens", "completion_tokens"} <= row.usage.keys()
        assert is_reported is not usage.get("estimated", False) or not row.usage
        assert len(raw.requests[case]) == row.requests
