"""Let each owner export one conversation at a time, on all workers of all servers."""

import secrets

from sessions import keys
from sessions.client.connection import Client
from sessions.client.scripts import call
from sessions.keys import Owner


async def claim(redis: Client, owner: Owner) -> str | None:
    """Claim the owner's slot; return the id of the claim, or None if the slot is taken.

    While Redis rejects writes, as with a full memory, the slot is free for all. Raises
    UNAVAILABLE_ERRORS.
    """
    claim_id = secrets.token_urlsafe(12)
    arguments = (claim_id, keys.EXPORT_TTL_S * 1000)
    is_claimed = await call(redis, "claim_export", [keys.export(owner)], arguments)
    return claim_id if is_claimed else None


async def release(redis: Client, owner: Owner, claim_id: str) -> None:
    """Release the owner's slot if the claim holds it; that of a worker that dies expires."""
    await call(redis, "release_export", [keys.export(owner)], [claim_id])
