"""What operators ask: is it alive, is it ready?"""

from sanic import Blueprint, HTTPResponse, Request
from sanic.response import json

from sessions.client import scripts
from sessions.client.errors import UNAVAILABLE_ERRORS

operations = Blueprint("operations")


@operations.get("/healthz")
async def healthz(request: Request) -> HTTPResponse:
    """Alive: a worker answers. Redis is not asked."""
    return json({"status": "alive"})


@operations.get("/readyz")
async def readyz(request: Request) -> HTTPResponse:
    """Ready: Redis answers, and the server is not stopping."""
    if request.app.ctx.turns.is_draining:
        return json({"status": "stopping"}, status=503)
    try:
        await scripts.ping(request.app.ctx.redis)
    except UNAVAILABLE_ERRORS:
        return json({"status": "Redis does not answer"}, status=503)
    return json({"status": "ready"})
