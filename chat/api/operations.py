"""Report the health of a worker to load balancers and orchestrators."""

from sanic import Blueprint, HTTPResponse, Request
from sanic.response import json

from chat.api.state import get_state

operations = Blueprint("operations")


@operations.get("/healthz")
async def report_alive(request: Request) -> HTTPResponse:
    """Return 200 from any running worker, whether or not Redis is available."""
    return json({"status": "alive"})


@operations.get("/readyz")
async def report_ready(request: Request) -> HTTPResponse:
    """Return 200 if Redis serves all that is used of it and the server is not stopping, else 503.

    The response names the reason within about two seconds, also if Redis does not reply.
    """
    state = get_state(request)
    if state.turns.is_draining:
        return json({"status": "stopping"}, status=503)
    if fault := await state.readiness.find_fault():
        return json({"status": "Redis is unavailable", "reason": str(fault)}, status=503)
    return json({"status": "ready"})
