"""Report the health of a worker to load balancers and orchestrators."""

from sanic import Blueprint, HTTPResponse, Request
from sanic.response import json

from chat.api.state import get_state
from sessions import keys
from sessions.client import scripts
from sessions.client.errors import UNAVAILABLE_ERRORS

operations = Blueprint("operations")


@operations.get("/healthz")
async def report_alive(request: Request) -> HTTPResponse:
    """Return 200 from any running worker, whether or not Redis is available."""
    return json({"status": "alive"})


@operations.get("/readyz")
async def report_ready(request: Request) -> HTTPResponse:
    """Return 200 if Redis is available and the server is not stopping, else 503."""
    state = get_state(request)
    if state.turns.is_draining:
        return json({"status": "stopping"}, status=503)
    try:
        await scripts.ping(state.redis, keys.stops())
    except UNAVAILABLE_ERRORS:
        return json({"status": "Redis is unavailable"}, status=503)
    return json({"status": "ready"})
