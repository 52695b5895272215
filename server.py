"""Holdline's server. `python server.py` starts it; `create_app(settings)` is its table of contents."""

import asyncio
import gc
import logging
import os
import re
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from sanic import Sanic
from sanic_ext import Extend

from chat.api import chat_stream, conversations, error_handlers, operations, page
from chat.log.batch import Batches
from chat.log.follower import Follower
from chat.log.logs import Logs
from chat.turns.prompt import Prompt
from chat.turns.question import QuestionBuilder
from chat.turns.registry import Turns
from chat.turns.takeover import Takeover
from chat.upstream.client import Upstream
from config import settings as configuration
from config.embedded_redis import EmbeddedRedis, EmbeddedRedisError
from config.logging import start_logging
from config.settings import Settings, SettingsError
from config.supervisor import StartError, Supervisor, bind
from sessions import middleware
from sessions.client import connection, scripts
from sessions.client.errors import UNAVAILABLE_ERRORS
from sessions.client.notifications import Notifications
from sessions.conversation_store import ConversationStore
from sessions.session_store import SessionStore
from sessions.turn_store import TurnStore

logger = logging.getLogger("holdline.server")


def create_app(settings: Settings, redis_url: str) -> Sanic[Any, Any]:
    """One worker's application."""
    app = Sanic("holdline", configure_logging=False)
    app.config.update(
        REQUEST_MAX_HEADER_SIZE=16_384,
        REQUEST_MAX_SIZE=1 << 20,
        GRACEFUL_SHUTDOWN_TIMEOUT=2.0,
        RESPONSE_TIMEOUT=60,
        ACCESS_LOG=False,
    )
    # For HEAD and OPTIONS; its pages of API documentation load scripts from other hosts.
    Extend(app, config={"oas": False})
    app.ctx.settings = settings
    error_handlers.install(app)
    middleware.install(app, lambda request: request.app.ctx.session_store, settings.session_max_s)
    app.blueprint(chat_stream.api)
    app.blueprint(conversations.conversations)
    app.blueprint(operations.operations)
    page.install(app)
    add_services(app, settings, redis_url)
    return app


def add_services(app: Sanic[Any, Any], settings: Settings, redis_url: str) -> None:
    """What lives as long as the worker: made before it serves, drained before it stops, closed after."""
    background: list[asyncio.Task[None]] = []

    @app.before_server_start
    async def start(app: Sanic[Any, Any]) -> None:
        redis = connection.connect(redis_url)
        app.ctx.redis = redis
        with suppress(*UNAVAILABLE_ERRORS):  # otherwise the first call loads the scripts
            await scripts.load(redis)
        app.ctx.models = settings.models
        app.ctx.upstreams = await open_upstreams(app, settings)
        app.ctx.session_store = SessionStore(
            redis, idle_s=settings.session_idle_s, ttl_s=settings.session_max_s
        )
        app.ctx.conversation_store = ConversationStore(redis, ttl_s=settings.session_max_s)
        turn_store = TurnStore(
            redis, lease_s=settings.lease_s, ttl_s=settings.session_max_s, rate=settings.rate
        )
        notifications = Notifications(redis)
        follower = Follower(notifications, turn_store)
        batches = Batches(turn_store, settings.lease_s)
        turns = app.ctx.turns = Turns(
            turn_store,
            app.ctx.conversation_store,
            Logs(turn_store, follower),
            batches,
            Prompt(
                app.ctx.conversation_store,
                system_prompt=settings.system_prompt,
                context_tokens=settings.context_tokens,
                prefill=settings.continue_mode == "prefill",
            ),
            app.ctx.upstreams,
            QuestionBuilder(app.ctx.conversation_store, app.ctx.models, settings.continue_max),
        )
        app.ctx.notifications = notifications
        for name, work in (
            ("batches", batches.run()),
            ("follower", follower.run(turns.stop_local)),
            ("takeover", Takeover(turn_store, turns, follower).run()),
        ):
            background.append(asyncio.create_task(work, name=name))
            background[-1].add_done_callback(exit_on_task_failure)

    @app.before_server_stop
    async def drain(app: Sanic[Any, Any]) -> None:
        await app.ctx.turns.drain()

    @app.after_server_stop
    async def close(app: Sanic[Any, Any]) -> None:
        await app.ctx.turns.close()
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await app.ctx.notifications.close()
        for upstream in app.ctx.upstreams:
            await upstream.close()
        if settings.demo:
            await app.ctx.demo.stop()
        await app.ctx.redis.aclose()


def exit_on_task_failure(task: asyncio.Task[None]) -> None:
    """End the worker if a task broke that it needs: it is replaced, its turns go on elsewhere."""
    if not task.cancelled() and task.exception():
        logger.critical(
            "the %s broke, and this worker ends", task.get_name(), exc_info=task.exception()
        )
        os._exit(70)  # EX_SOFTWARE


async def open_upstreams(app: Sanic[Any, Any], settings: Settings) -> list[Upstream]:
    """The upstreams in the order in which they are asked."""
    timeout_s = settings.upstream_timeout_s
    if settings.demo:
        return [
            Upstream(base_url=await start_demo(app), api_key=None, timeout_s=timeout_s, name="demo")
        ]
    configured = (
        [(settings.openai_base_url, settings.openai_api_key, "")]
        if settings.has_primary_upstream
        else []
    )
    configured += [(other.base_url, other.api_key, other.model) for other in settings.upstreams]
    return [
        Upstream(
            base_url=base_url,
            api_key=key.get_secret_value() if key else None,
            timeout_s=timeout_s,
            model=model,
            # A stale connection is worth one more try; for the rest the next upstream is there.
            retries=1 if len(configured) > 1 else 2,
        )
        for base_url, key, model in configured
    ]


async def start_demo(app: Sanic[Any, Any]) -> str:
    """Start the built-in model; returns its base URL."""
    from chat.demo.model import (
        DemoModel,  # its web server takes a while to import, and few servers need it
    )

    app.ctx.demo = DemoModel()
    base_url: str = await app.ctx.demo.start()
    return base_url


def serve(
    settings: Settings,
    redis_url: str,
    listener: socket.socket,
    ready: Callable[[], None],
    supervisor_fd: int,
) -> None:
    """Be one worker: serve on `listener` until SIGTERM; exit at once when the supervisor is gone."""
    app = create_app(settings, redis_url)

    @app.after_server_start
    async def announce(app: Sanic[Any, Any]) -> None:
        asyncio.get_running_loop().add_reader(supervisor_fd, os._exit, 1)
        ready()

    # Sanic listens anew on the socket, by default with a queue of 100.
    app.run(sock=listener, single_process=True, motd=False, access_log=False, backlog=4096)


def main() -> int:
    """Start the server and stay until it is told to stop; returns the exit status."""
    try:
        settings = configuration.load()
        start_logging(settings.log_level)
        listener = bind(settings.host, settings.port)
        private = None if settings.redis_url else EmbeddedRedis(settings.data_dir)
        if private:
            private.start()
    except (SettingsError, StartError, EmbeddedRedisError) as error:
        print(f"holdline: {error}", file=sys.stderr)
        return 1
    try:
        redis_url = private.url if private else settings.redis_url
        assert redis_url is not None
        gc.freeze()  # what is loaded by now is shared by all workers: leave its pages untouched
        supervisor = Supervisor(
            lambda *arguments: serve(settings, redis_url, *arguments),
            listener,
            settings.workers,
            private,
        )
        return supervisor.run(lambda: announce(settings, listener, private))
    except EmbeddedRedisError as error:
        print(f"holdline: {error}", file=sys.stderr)
        return 1
    finally:
        if private:
            private.stop()


def announce(settings: Settings, listener: socket.socket, private: EmbeddedRedis | None) -> None:
    """Say where the page is, which model answers and where the data lies."""
    host, port = listener.getsockname()[:2]
    # An address that stands for every interface is none that a browser could open.
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host  # noqa: S104
    if settings.demo:
        model = "built-in demo model; set OPENAI_API_KEY or OPENAI_BASE_URL for a real one"
    else:
        upstreams = [(other.model, other.base_url) for other in settings.upstreams]
        if settings.has_primary_upstream:
            upstreams.insert(
                0, (", ".join(settings.chat_model), settings.openai_base_url or "OpenAI")
            )
        # An address may hold a password.
        upstreams = [(name, re.sub(r"//.*@", "//", address)) for name, address in upstreams]
        model = ", then ".join(f"{name} at {address}" for name, address in upstreams)
    data = (
        f"{settings.data_dir.resolve()} (embedded Redis {private.version})"
        if private
        else "your own Redis"
    )
    print(
        f"\nHoldline   http://{shown}:{port}/\nmodel      {model}\ndata       {data}\n", flush=True
    )


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
