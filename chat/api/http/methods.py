"""Answer HEAD and OPTIONS on every route, with sanic-ext."""

from typing import Any

from sanic import Sanic
from sanic_ext import Extend
from sanic_ext.config import PRIORITY


def install(app: Sanic[Any, Any]) -> None:
    """Add the routes of HEAD and OPTIONS when the worker starts.

    sanic-ext adds them one by one, and Sanic would compile all its signals after each: 158 times,
    for 1.4 s. Sanic skips signals that are not compiled. So they are reset first, and compiled once
    at the end.
    """
    # sanic-ext's own documentation is OpenAPI 3.0, and loads scripts of other hosts.
    Extend(app, config={"oas": False, "cors": False})
    app.register_listener(_reset_signals, "before_server_start", priority=PRIORITY + 1)
    app.register_listener(_compile_signals, "before_server_start", priority=PRIORITY - 1)


async def _reset_signals(app: Sanic[Any, Any]) -> None:
    app.signal_router.reset()  # type: ignore[no-untyped-call]


async def _compile_signals(app: Sanic[Any, Any]) -> None:
    app.signalize(app.config.TOUCHUP)
