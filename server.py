"""Start Holdline: `python server.py`. `open_state` lists the parts of one worker."""

import os
import signal

if __name__ == "__main__":  # before the slow imports: without a handler, PID 1 ignores SIGTERM
    signal.signal(signal.SIGTERM, lambda *_: os._exit(143))

import asyncio
import gc
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from functools import partial
from typing import Any

from sanic import Sanic

from chat.api import chat_stream, error_handlers, events, guard, logout, operations, page
from chat.api.conversations import exports, routes
from chat.api.http import cors, methods
from chat.api.http.request import PrefixedRequest, install_redirect
from chat.api.http.server import HttpServer, choose_event_loop
from chat.api.openapi.document import build_document
from chat.api.state import State, get_state
from chat.api.trust import hosts, proxies
from chat.api.v1 import chat_completions
from chat.events.feeds import Feeds
from chat.log.batches import Batches
from chat.log.follower import Follower
from chat.log.logs import Logs
from chat.turns.context.budget import Budgets
from chat.turns.context.prompt import Prompt
from chat.turns.generation import Generator
from chat.turns.moderation.moderator import Moderator
from chat.turns.question import QuestionBuilder
from chat.turns.registry import Turns
from chat.turns.takeover import Takeover
from chat.turns.upstream_choice import ContinueMode
from chat.upstream.client import Upstream
from chat.upstream.moderations import ModerationEndpoint
from chat.upstream.response.completion import Timeouts
from config import settings as configuration
from config.background import run_in_background
from config.banner import print_banner, print_drain, warn_of_rebinding
from config.children.embedded_redis import EmbeddedRedis, EmbeddedRedisError
from config.children.llama_server import LlamaServer, LlamaServerError
from config.listener import ListenError, listen
from config.logging import start_logging
from config.settings import Settings, SettingsError
from config.supervisor import Supervisor
from config.system import descriptors, startup
from config.worker_channel import Order, WorkerChannel
from sessions import middleware
from sessions.client import connection
from sessions.client.notifications import Notifications
from sessions.conversation_store import ConversationStore
from sessions.event_store import EventStore
from sessions.limits import ConversationLimiter, Rate, StorageLimits
from sessions.model_facts import ModelFacts
from sessions.probe.readiness import Readiness
from sessions.probe.settings import log_warnings
from sessions.probe.startup import UrlRejected, try_redis
from sessions.session_store import SessionStore
from sessions.turns.turn_limits import TurnLimiter, TurnLimits
from sessions.turns.turn_store import TurnStore


def create_app(settings: Settings, redis_url: str) -> Sanic[Any, Any]:
    """Return the application that each worker runs."""
    app = Sanic("holdline", configure_logging=False, request_class=PrefixedRequest)
    app.config.update(
        REQUEST_MAX_HEADER_SIZE=16_384,
        REQUEST_MAX_SIZE=1 << 20,
        GRACEFUL_SHUTDOWN_TIMEOUT=2.0,
        ACCESS_LOG=False,
        MOTD=False,
        BASE_PATH=settings.base_path,
    )
    methods.install(app)
    error_handlers.install(app)
    proxies.install(app, settings.trusted_proxies)
    hosts.install(app, settings.allowed_hosts, is_local=hosts.is_loopback(settings.host))
    cors.install(app, settings.cors_origins)
    guard.install(app)  # before a session is opened
    middleware.install(
        app,
        lambda request: get_state(request).session_store,
        guard.needs_session,
        lambda request: proxies.get_scheme(request) == "https",
        cookie_max_age_s=settings.session_max_s,
        is_cross_site=settings.cookie_samesite == "none",
    )
    app.blueprint([chat_stream.chat_stream, routes.conversations, exports.exports])
    app.blueprint([events.events, logout.logout, operations.operations, chat_completions.v1])
    page.install(app, build_document(needs_key=bool(settings.api_keys)))
    if settings.base_path:
        install_redirect(app, settings.base_path)
    install_lifespan(app, settings, redis_url)
    return app


def install_lifespan(app: Sanic[Any, Any], settings: Settings, redis_url: str) -> None:
    """Build the state before the worker serves, and close it after the worker has stopped."""
    resources = AsyncExitStack()

    @app.before_server_start
    async def start(app: Sanic[Any, Any]) -> None:
        app.ctx.state = await resources.enter_async_context(open_state(settings, redis_url))

    @app.after_server_stop
    async def close(app: Sanic[Any, Any]) -> None:
        await resources.aclose()


@asynccontextmanager
async def open_state(settings: Settings, redis_url: str) -> AsyncIterator[State]:
    """Build the state of a worker and start its background tasks; close them in reverse order."""
    async with AsyncExitStack() as resources:
        redis = connection.connect(redis_url)
        resources.push_async_callback(redis.aclose)
        upstreams = await open_upstreams(settings, resources)
        notifications = Notifications(redis)
        resources.push_async_callback(notifications.close)
        ttl_s, lease_s, log_s = settings.session_max_s, settings.lease_s, settings.log_keep_s
        limits = StorageLimits(redis, settings.owner_max_bytes)
        store = ConversationStore(redis, ttl_s=ttl_s, limits=limits)
        turn_store = TurnStore(redis, lease_s=lease_s, ttl_s=ttl_s, log_keep_s=log_s, limits=limits)
        rates = Rate(*settings.rate), Rate(*settings.address_rate)
        limiter = TurnLimiter(redis, TurnLimits(*rates, *settings.turn_limits), lease_s=lease_s)
        follower = Follower(notifications, turn_store)
        batches = Batches(turn_store, lease_s)
        context_tokens = None if settings.context_tokens == "auto" else settings.context_tokens
        moderator = open_moderator(settings, resources)
        budgets = Budgets(context_tokens, settings.max_output_tokens)
        generator = Generator(
            Prompt(store, budgets, system_prompt=settings.system_prompt),
            ContinueMode(settings.continue_mode, ModelFacts(redis)),
            upstreams,
            settings.turn_max_s,
            moderator if settings.moderation in ("output", "both") else None,
        )
        questions = QuestionBuilder(store, settings.models, settings.continue_max)
        logs = Logs(turn_store, follower)
        turns = Turns(
            turn_store,
            store,
            logs,
            batches,
            generator,
            questions,
            limiter,
            moderator if settings.moderation in ("input", "both") else None,
        )
        takeover = Takeover(turn_store, turns, follower)
        feeds = Feeds(notifications, EventStore(redis))
        for name, work in (
            ("batches", batches.run()),
            ("follower", follower.run(turns.stop_local)),
            ("takeover", takeover.run()),
            ("feeds", feeds.run()),
            ("memory_watch", limits.memory_watch.run()),
            ("warnings", log_warnings(redis)),
            *(("models", upstream.watch_models()) for upstream in upstreams),
        ):
            await resources.enter_async_context(run_in_background(name, work))
        resources.push_async_callback(turns.close)
        yield State(
            redis=redis,
            readiness=Readiness(redis, notifications, is_embedded=not settings.redis_url),
            session_store=SessionStore(redis, idle_s=settings.session_idle_s, ttl_s=ttl_s),
            conversation_store=store,
            conversation_limiter=ConversationLimiter(redis, *rates),
            turns=turns,
            turn_limiter=limiter,
            feeds=feeds,
            models=settings.models,
            message_max=settings.message_max,
            system_max=settings.system_max,
            is_demo=settings.demo,
            api_keys={name: key.get_secret_value() for name, key in settings.api_keys.items()},
            is_local=hosts.is_loopback(settings.host),
            allowed_origins=settings.cors_origins,
        )


async def open_upstreams(settings: Settings, resources: AsyncExitStack) -> list[Upstream]:
    """Return the upstreams in the order in which they are tried; `resources` closes them."""
    timeouts = Timeouts(settings.upstream_timeout_s, settings.first_token_timeout_s)
    if settings.demo:
        from chat.demo.model import DemoModel  # here, because its HTTP server is slow to import

        demo = DemoModel()
        resources.push_async_callback(demo.stop)
        base_url = await demo.start()
        upstreams = [Upstream(base_url=base_url, api_key=None, timeouts=timeouts, name="demo")]
    else:
        upstreams = [
            Upstream(
                base_url=one.base_url,
                api_key=one.api_key.get_secret_value() if one.api_key else None,
                timeouts=timeouts,
                # Clients see the name, but never the address.
                name=one.name or (f"fallback {number}" if number else "primary"),
                model=one.model,
                concurrency=one.concurrency and one.concurrency // settings.workers,
                max_output_tokens=settings.max_output_tokens,
            )
            for number, one in enumerate(settings.all_upstreams)
        ]
    for upstream in upstreams:
        resources.push_async_callback(upstream.close)
    return upstreams


def open_moderator(settings: Settings, resources: AsyncExitStack) -> Moderator | None:
    """Return the moderator of questions and answers, if one is set; `resources` closes it."""
    if settings.moderation == "off":
        return None
    key = settings.moderation_key
    endpoint = ModerationEndpoint(
        base_url=settings.moderation_url,
        api_key=key.get_secret_value() if key else None,
        model=settings.moderation_model,
    )
    resources.push_async_callback(endpoint.close)
    return Moderator(endpoint, fails_open=settings.moderation_fail == "open")


def serve(
    app: Sanic[Any, Any], settings: Settings, listener: socket.socket, channel: WorkerChannel
) -> None:
    """Run one worker on `listener` until it has drained, or until the supervisor is gone."""
    maxima = descriptors.choose_connection_limits(settings.connections_max, descriptors.get_limit())
    server = HttpServer(app, *maxima, settings.trusted_proxies)
    with asyncio.Runner(loop_factory=choose_event_loop()) as runner:
        runner.run(run_worker(server, settings.drain_s, listener, channel))


async def run_worker(
    server: HttpServer, drain_s: float, listener: socket.socket, channel: WorkerChannel
) -> None:
    """Serve until an order or SIGTERM, finish the running answers within `drain_s`, and stop."""
    await server.start(listener)
    state: State = server.app.ctx.state
    turns = state.turns
    stopping = asyncio.Event()

    def obey(order: Order) -> None:
        if order is Order.HAND_OVER:
            turns.hand_over()
        stopping.set()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    channel.listen(obey)
    channel.report_ready()
    await stopping.wait()
    channel.report_draining(turns.count)
    server.announce_close()
    await turns.drain(drain_s)
    state.feeds.close()
    await server.stop()
    # When the event loop closes, it restores the default action of SIGTERM.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])


def supervise(
    settings: Settings,
    listener: socket.socket,
    redis_url: str,
    embedded_redis: EmbeddedRedis | None = None,
    llama_server: LlamaServer | None = None,
) -> int:
    """Run the workers until SIGTERM or SIGINT; return the exit status."""
    run = partial(serve, create_app(settings, redis_url), settings)
    gc.freeze()  # the garbage collector would write to, and so copy, memory that workers share
    children = [child for child in (embedded_redis, llama_server) if child]
    supervisor = Supervisor(run, listener, settings.workers, children, settings.drain_s)
    return supervisor.run(
        lambda: print_banner(settings, listener, embedded_redis),
        lambda running: print_drain(running, settings.drain_s),
    )


def main() -> int:
    """Start the server and run it until SIGTERM or SIGINT; return the exit status."""
    try:
        settings = configuration.load()
        start_logging(settings.log_level)
        startup.prepare(configuration.NAMES)
        warn_of_rebinding(settings, is_local=hosts.is_loopback(settings.host))
        listener = listen(settings.host, settings.port)
        with ExitStack() as children:
            llama = LlamaServer(settings.model, settings.data_dir) if settings.model else None
            redis_url, embedded_redis = settings.redis_url, None
            if redis_url:
                try_redis(redis_url)
            else:
                embedded_redis = EmbeddedRedis(settings.data_dir, settings.redis_maxmemory)
                children.enter_context(embedded_redis)
                redis_url = embedded_redis.url
            if llama:
                children.enter_context(llama)
                settings = settings.with_local_model(llama)
            return supervise(settings, listener, redis_url, embedded_redis, llama)
    except (SettingsError, ListenError, EmbeddedRedisError, LlamaServerError, UrlRejected) as error:
        print(f"holdline: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # before the supervisor handles signals, such as during a long load
        return 130


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
