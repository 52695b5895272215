"""An upstream that answers every question with a text that is derived from the question.

A request to continue a partial answer gets exactly the rest. So the complete answer is known,
whatever happens in between.
"""

import asyncio
import contextlib
import random
from collections.abc import Iterable, Iterator

from tests.fake_upstream import Exchange, ScriptedUpstream

_WORDS = (5, 90)
_PAUSE_S = (0.01, 0.06)


def compose_answer(question: str) -> str:
    """Return the complete answer: words that occur in no other answer, each once."""
    chance = random.Random(question)
    tag = f"{chance.getrandbits(32):08x}"
    return " ".join(f"{tag}.{number}" for number in range(chance.randint(*_WORDS)))


def split(text: str) -> Iterator[str]:
    """Yield the deltas of a text: its words, each with the space before it."""
    start = 0
    while start < len(text):
        end = text.find(" ", start + 1)
        end = len(text) if end < 0 else end
        yield text[start:end]
        start = end


def find_question(messages: list[dict[str, str]], asked: Iterable[str]) -> tuple[str, str]:
    """Return the last question of a request, and the partial answer to it; "" for none.

    A question that has no answer precedes the next one in the same message.
    """
    for number in reversed(range(len(messages))):
        if messages[number]["role"] == "user":
            for question in asked:
                if messages[number]["content"].endswith(question):
                    following = messages[number + 1 : number + 2]
                    return question, following[0]["content"] if following else ""
    return "", ""


class Narrator:
    """Answers requests, and records the partial answer that each of them contains."""

    def __init__(self) -> None:
        self.requests: dict[str, list[str]] = {}
        """For each question, the partial answers of its requests in the order of arrival."""
        self.shown: dict[str, bool] = {}
        """For each question asked, whether a viewer has seen text of its answer."""
        self.violations: list[str] = []
        self.upstream = ScriptedUpstream(self._respond)

    async def _respond(self, exchange: Exchange) -> None:
        question, partial = find_question(exchange.messages, self.shown)
        if not question:
            self.violations.append("a request to the upstream contains no question of a user")
            exchange.reply(400, {"error": {"message": "no question"}})
            return
        self.requests.setdefault(question, []).append(partial)
        answer = compose_answer(question)
        if not partial and self.shown[question]:
            self.violations.append(f"{question}: requested from nothing after text was shown")
        if not answer.startswith(partial):
            self.violations.append(f"{question}: requested with text that no upstream sent")
        pause_s = random.Random(question).uniform(*_PAUSE_S)
        with contextlib.suppress(ConnectionError):  # its worker is dead
            for delta in split(answer[len(partial) :]):
                await exchange.send_text(delta)
                await asyncio.sleep(pause_s)
            await exchange.finish()
