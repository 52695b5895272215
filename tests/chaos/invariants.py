"""The invariants of a fault run, checked after it. Pure; docs/durability.md states them."""

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tests.chaos.narrator import compose_answer


@dataclass(frozen=True)
class Outcome:
    """The result of one question."""

    question: str
    shown: Sequence[str]
    """Every text that a viewer showed, at its longest."""
    failures: Sequence[str]
    """The data of the `failed` frames that viewers received."""
    was_replaced: bool
    """Whether the user sent another question while the answer was being generated."""
    rejections: Sequence[int]
    """The statuses of responses that were not a stream."""
    requests: int
    """Requests to the upstream."""
    fence: int
    """How often a worker acquired the turn's lease; 0 if the turn is unknown."""


_EXPECTED_REJECTIONS = {503}
"""Redis is unavailable, or the server is stopping."""

_RECORD = re.compile(r"^(?=\d{4}-\d\d-\d\dT)", re.MULTILINE)
"""The beginning of a log record."""


def find_violations(
    outcomes: Sequence[Outcome], history: Sequence[tuple[str, str]], running: str | None
) -> list[str]:
    """Return a sentence for each invariant that does not hold in a conversation.

    `history` holds the role and the content of each stored message; `running` is the turn that the
    conversation reports as running.
    """
    found = [] if running is None else [f"turn {running} is still reported as running"]
    questions = [content for role, content in history if role == "user"]
    asked = [outcome.question for outcome in outcomes]
    if questions != asked:
        lost = [question for question in asked if question not in questions]
        problem = f"lacks {lost}" if lost else "has the questions in another order, or twice"
        found.append(f"the history {problem}")
    answers = {
        question: content
        for (role, question), (next_role, content) in itertools.pairwise(history)
        if (role, next_role) == ("user", "assistant")
    }
    if len(answers) != len(history) - len(questions):
        found.append("the history has an answer that follows no question")
    for outcome in outcomes:
        found += [
            f"{outcome.question}: {problem}"
            for problem in _check_answer(outcome, answers.get(outcome.question))
        ]
    return found


def _check_answer(outcome: Outcome, answer: str | None) -> list[str]:
    found = []
    expected = compose_answer(outcome.question)
    if answer is None:
        found.append("no answer is stored")
    elif not (expected.startswith(answer) if outcome.was_replaced else answer == expected):
        found.append(f"the stored answer has {len(answer)} characters that are not the upstream's")
    if not all((answer or "").startswith(text) for text in outcome.shown):
        found.append("a viewer saw text that is not the beginning of the stored answer")
    found += [f"a viewer received `failed`: {data}" for data in set(outcome.failures)]
    if unexpected := set(outcome.rejections) - _EXPECTED_REJECTIONS:
        found.append(f"a viewer received the status {sorted(unexpected)}")
    if outcome.requests > outcome.fence:
        found.append(
            f"{outcome.requests} requests to the upstream by {outcome.fence} holders of the lease"
        )
    return found


def find_tracebacks(log: str) -> list[str]:
    """Return a sentence for each error whose traceback a server's log has, with its logger."""
    found = Counter[str]()
    for record in _RECORD.split(log):
        if "Traceback (most recent call last)" in record:
            first, *rest = record.splitlines()
            errors = [line for line in rest if re.search(r"\w", line)]
            found[f"{' '.join(first.split()[1:3])} {errors[-1].strip()}"] += 1
    return [f"{count}x a traceback in the log: {place}" for place, count in found.items()]
