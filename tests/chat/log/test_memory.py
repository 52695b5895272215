"""The memory that Redis needs for a turn in the middle of its answer."""

import json
import secrets
from dataclasses import replace

import pytest

from chat.log import records
from chat.log.batches import Batches
from chat.log.log import Log
from chat.log.records import Kind
from sessions.client.connection import Client
from sessions.keys import ConversationId, MessageId, Owner, TurnId
from sessions.turns.turn_record import NewTurn, TurnRef
from sessions.turns.turn_store import TurnStore
from tests.questions import question_at

TOKENS = [f" {number:03d}" for number in range(200)]
"""Four characters each, as the tokens of English text have on average."""

BYTES_IN_0_1 = 20_960
"""MEMORY USAGE of turn and log after the same tokens in version 0.1: 376 and 20,584 bytes.

Measured with Redis 7.0.15 on commit 5b762fc. Its committer appended one frame for each token, each
in its own commit, to a turn with ids and a first frame of the same lengths. The log then had 9,000
bytes: Redis allocates up to twice the length of a string that grows.
"""


def typical_turn() -> NewTurn:
    """Return a question whose fields are as long as those of a question over HTTP."""
    ref = TurnRef(
        Owner(secrets.token_urlsafe(16)),
        ConversationId(secrets.token_urlsafe(12)),
        TurnId(secrets.token_urlsafe(16)),
    )
    user, answer, model = MessageId("u" * 16), MessageId("a" * 16), "gpt-4o-mini"
    data = {
        "turn": ref.turn,
        "conversation": ref.conversation,
        "message": user,
        "answer": answer,
        "model": model,
    }
    first = records.encode(ref.turn, 0, Kind.TURN, json.dumps(data))
    before, _, after = first.partition(user.encode())
    return replace(
        question_at(ref),
        digest="d" * 32,
        question_id=user,
        answer_id=answer,
        model=model,
        first_record=(before, after),
        attempt="t" * 16,
    )


@pytest.mark.parametrize("redis_url", ["redis"], indirect=True)
async def test_a_turn_in_mid_answer_takes_less_than_half_the_memory_that_0_1_took(
    redis: Client, turns: TurnStore, writers: Batches
) -> None:
    new = typical_turn()
    assert (await turns.begin(new)).outcome == "begun"
    log = Log(new.ref, new.question_id.encode().join(new.first_record), read=turns.read_range)
    writer = writers.open(log, fence=1)
    attempt = {"number": 1, "upstream": "api.openai.com", "mode": "new", "reason": None}
    writer.append(Kind.ATTEMPT, json.dumps(attempt))
    for token in TOKENS:  # one record each, the worst case
        writer.append(Kind.TEXT, token)
        writer.batch.flush(writer)
        while log.committed < log.end:
            await log.wait_for_commit()
    keys = (new.ref.turn_key, new.ref.log_key)
    sizes = [await redis.execute_command("MEMORY USAGE", key) for key in keys]
    assert sum(sizes) < BYTES_IN_0_1 / 2
