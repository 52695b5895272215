"""Store facts about the models of upstreams, which a worker has found, for all workers."""

import hashlib

from sessions import keys
from sessions.client.connection import Client
from sessions.client.scripts import call

_TTL_S = 86_400


class ModelFacts:
    """Records the models that do not continue a partial answer after prefill.

    Both methods raise UNAVAILABLE_ERRORS.
    """

    def __init__(self, redis: Client) -> None:
        self._redis = redis

    async def rejects_prefill(self, upstream: str, model: str) -> bool:
        """Return whether a model of an upstream has not continued a prefilled answer."""
        return bool(await call(self._redis, "EXISTS", [_key(upstream, model)], []))

    async def note_rejected_prefill(self, upstream: str, model: str) -> None:
        """Remember for a day that a model has not continued a prefilled answer."""
        await call(self._redis, "SET", [_key(upstream, model)], ["1", "EX", _TTL_S])


def _key(upstream: str, model: str) -> str:
    digest = hashlib.blake2b(f"{upstream}\n{model}".encode(), digest_size=16).hexdigest()
    return keys.rejected_prefill(digest)
