"""Count the tokens of a turn: reported by its upstreams, else estimated. Pure."""

from typing import Any

import msgspec

from chat.upstream.response.chunks import Usage


class TurnUsage(msgspec.Struct, frozen=True, omit_defaults=True):
    """The tokens of a turn's requests; `estimated` if an upstream did not report all of them."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    estimated: bool = False

    def add(self, other: "TurnUsage") -> "TurnUsage":
        """Return the tokens of both."""
        return TurnUsage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.total_tokens + other.total_tokens,
            self.estimated or other.estimated,
        )


NO_REQUEST = TurnUsage(0, 0, 0, estimated=True)
"""The usage of a turn for which no upstream has begun to generate."""


def fill_report(report: Usage | None, prompt_tokens: int, completion_tokens: int) -> TurnUsage:
    """Return an upstream's report, with these estimates for the counts that it lacks."""
    known = report or Usage()
    is_estimated = known.prompt_tokens is None or known.completion_tokens is None
    prompt = prompt_tokens if known.prompt_tokens is None else known.prompt_tokens
    completion = completion_tokens if known.completion_tokens is None else known.completion_tokens
    total = prompt + completion if known.total_tokens is None else known.total_tokens
    return TurnUsage(prompt, completion, total, is_estimated)


def restore_usage(attempts: list[dict[str, Any]], output_size: int) -> TurnUsage | None:
    """Return the usage of a turn that is taken over, from its attempts as the log has them.

    The last request was lost with its worker: its tokens are estimated, from the size of the whole
    output. An attempt of an older version lacks the fields. Raises msgspec.ValidationError.
    """
    if not attempts:
        return None
    last = attempts[-1]
    lost = fill_report(None, last.get("tokens", 0), max(0, output_size - last.get("output", 0)))
    before = msgspec.convert(last.get("usage"), TurnUsage | None)
    return before.add(lost) if before else lost
