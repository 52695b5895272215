"""The cost of a turn does not grow with its conversation: messages sent, commands and bytes."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from chat.turns.context.prompt import Estimator
from sessions import keys
from sessions.client.connection import Client, is_cluster
from sessions.conversation_store import new_id
from sessions.keys import ConversationId, Owner
from tests.fake_upstream import ScriptedUpstream
from tests.streams import ask, read


async def owner_of(redis: Client, conversation: str) -> Owner:
    """Return the owner of a conversation, from the name of its key."""
    (key,) = [key async for key in redis.scan_iter(f"holdline:*:conversation:{conversation}")]
    return Owner(key.decode().split("{")[1].split("}")[0])


async def lengthen(redis: Client, owner: Owner, conversation: ConversationId, count: int) -> None:
    """Append `count` messages to a conversation's current branch, as `begin` and `finish` do."""
    name = keys.conversation(owner, conversation)
    found: Any = await redis.hget(name, "head")
    head = found.decode()
    pipeline = redis.pipeline(transaction=False)
    for number in range(count):
        body = {
            "role": "user" if number % 2 == 0 else "assistant",
            "content": f"{number} " + "words " * 40,
        }
        message = new_id()
        pipeline.hset(
            keys.messages(owner, conversation),
            message,
            f"{head}\n{json.dumps(body | {'created': 1})}",
        )
        head = message
    pipeline.hset(name, "head", head)
    await pipeline.execute()


async def measure_work(redis: Client, act: Any) -> tuple[int, int, int]:
    """Return the commands that Redis ran and the bytes it received and sent while `act` ran.

    Commands of the measurement itself and of idle connections are not counted.
    """
    await redis.config_resetstat()
    await act
    info = await redis.info("all")
    calls = sum(
        stats["calls"]
        for name, stats in info.items()
        if name.startswith("cmdstat_") and name not in IDLE
    )
    return calls, info["total_net_input_bytes"], info["total_net_output_bytes"]


IDLE = {
    "cmdstat_info",
    "cmdstat_config",
    "cmdstat_config|resetstat",
    "cmdstat_ping",
    "cmdstat_client|setinfo",
    # Each server polls for expired leases; the commands inside other scripts are counted.
    "cmdstat_evalsha",
    "cmdstat_time",
    "cmdstat_zrangebyscore",
}


async def test_a_conversation_of_a_thousand_messages_sends_a_bounded_request(
    new_client: httpx.AsyncClient, upstream: ScriptedUpstream, redis: Client, question: str
) -> None:
    events = await ask(new_client, upstream, question, "first")
    conversation = ConversationId(json.loads(events[0].data)["conversation"])
    await lengthen(redis, await owner_of(redis, conversation), conversation, 1000)
    await ask(new_client, upstream, f"{question} now", "bounded")
    messages = (await upstream.exchange(f"{question} now")).messages
    estimator = Estimator()
    tokens = sum(estimator.estimate("any", message["content"]) for message in messages)
    assert 8_000 < tokens <= 17_000  # 16,000 by an estimate that a report has changed slightly
    assert messages[0]["role"] == "user"
    assert messages[-1]["content"] == f"{question} now"
    assert messages[-2]["content"].startswith("999 ")
    assert [m["role"] for m in messages] == ["user", "assistant"] * (len(messages) // 2) + ["user"]


async def test_the_redis_work_of_a_turn_does_not_grow_with_its_conversation(
    new_client: httpx.AsyncClient, upstream: ScriptedUpstream, redis: Client, question: str
) -> None:
    if is_cluster(redis):
        pytest.skip("the counters are those of a single Redis")
    events = await ask(new_client, upstream, question, "first")
    conversation = ConversationId(json.loads(events[0].data)["conversation"])
    owner = await owner_of(redis, conversation)
    await lengthen(redis, owner, conversation, 1000)  # enough to fill the token budget
    costs = []
    for length in range(2):
        measured = [
            await measure_work(
                redis, ask(new_client, upstream, f"{question} {length} {again}", "an answer")
            )
            for again in range(3)
        ]
        # The minimum leaves out what a busy machine adds: a takeover reads the conversation again.
        costs.append([min(values) for values in zip(*measured, strict=True)])
        if length == 0:
            await lengthen(redis, owner, conversation, 3000)
    (calls, received, sent), (later_calls, later_received, later_sent) = costs
    # Lease renewals depend on the time and may add a call and its bytes to either turn.
    assert abs(later_calls - calls) <= 8
    assert abs(later_received - received) <= 4_000
    assert abs(later_sent - sent) <= 0.1 * sent + 4_000
    assert sent < 16_000 * 8 * 2


async def test_the_number_of_messages_sent_follows_the_reported_token_counts(
    new_client: httpx.AsyncClient, upstream: ScriptedUpstream, redis: Client, question: str
) -> None:
    sent = []
    for number, reported in enumerate((None, 4.0, 1.0, 1.0)):
        asked = f"{question} {number}"
        # Its reports must not correct the estimates of the other tests.
        reading = asyncio.create_task(read(new_client, None, message=asked, model="other-model"))
        exchange = await upstream.exchange(asked)
        if number == 0:
            await exchange.answer("x")
            events = await reading
            conversation = ConversationId(json.loads(events[0].data)["conversation"])
            await lengthen(redis, await owner_of(redis, conversation), conversation, 1000)
            continue
        sent.append(len(exchange.messages))
        raw = sum(Estimator().estimate("any", m["content"]) for m in exchange.messages)
        await exchange.send_text("x")
        await exchange.finish(
            usage={"prompt_tokens": int(raw * (reported or 1)), "completion_tokens": 1}
        )
        await reading
    assert sent[1] < sent[0]  # four times the estimated tokens: fewer messages fit
    assert sent[2] > sent[1]  # lower reports: more messages fit again
