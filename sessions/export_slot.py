"""Let each owner export one conversation at a time, on all workers of all servers."""

import secrets

from sessions import keys
from sessions.client.connection import Client
from sessions.client.scripts import call
from sessions.keys import Owner


async def claim(redis: Client, owner: Owner) -> bool:
    """Claim the owner's slot unless it is taken; raises UNAVAILABLE_ERRORS."""
    arguments = (secrets.token_urlsafe(12), keys.EXPORT_TTL_S * 1000)
    return bool(await call(redis, "claim_export", [keys.export(owner)], arguments))


async def release(redis: Client, owner: Owner) -> None:
    """Release the owner's slot; the slot of a worker that dies expires."""
    await call(redis, "DEL", [keys.export(owner)], [])
