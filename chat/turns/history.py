"""What goes to the upstream before the question: the history, as far as the budget goes."""

from chat.turns import prompt
from chat.upstream.request import ChatMessage
from sessions.store import Store
from sessions.turn_store import TurnRecord

_CONTINUE_PROMPT = (
    "Your answer broke off. Continue exactly where it stopped, in the middle of a word if need be: "
    "repeat nothing, add no introduction, and keep its language and format."
)

_MESSAGES_MAX = 2000
"""Most messages sent upstream: real ones of this number pass any budget sooner."""


class History:
    """Chooses the messages for a turn; what it reads does not grow with the conversation."""

    def __init__(
        self, store: Store, *, system_prompt: str, context_tokens: int, prefill: bool
    ) -> None:
        self.prefill = prefill
        self._store = store
        self._system_prompt = system_prompt
        self._budget = context_tokens
        self._estimator = prompt.Estimator()

    async def messages(
        self, record: TurnRecord, model: str, partial: str = ""
    ) -> list[ChatMessage]:
        """The messages that a turn's question ends, or the answer so far, as many as `model` is likely to
        count to within the budget; raises what is in AWAY."""
        ref = record.ref
        system, newest_first = await self._store.context(
            ref.owner,
            ref.conversation,
            record.question_id,
            max_bytes=self._budget * prompt.MAX_BYTES_PER_TOKEN,
            max_count=_MESSAGES_MAX,
        )
        if system is None:
            system = self._system_prompt
        newest = [{"role": "assistant", "content": partial}] if partial else []
        if partial and not self.prefill:
            newest.insert(0, {"role": "user", "content": _CONTINUE_PROMPT})
        bodies = newest + [message.body for message in newest_first]
        return prompt.fit_to_budget(
            self._estimator, model, self._budget, system, bodies, min_messages=len(newest) + 1
        )

    def calibrate(self, model: str, size: float, reported: int) -> None:
        """Correct the estimate by the number of tokens that the upstream counted for messages of `size`."""
        self._estimator.calibrate(model, size, reported)
