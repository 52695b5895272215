"""The table of all vectors."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from tests.attack import (
    connections,
    exports,
    floods,
    holding,
    ids,
    origins,
    responses,
    sessions,
    upstreams,
)
from tests.attack.target import NO_LIMITS, UNTRUSTED, Outcome, Target

Attack = Callable[[Target], Awaitable[Outcome]]


@dataclass(frozen=True)
class Vector:
    """One attack, and the server that it needs."""

    name: str
    attack: Attack
    settings: Mapping[str, str] = field(default_factory=dict)
    wrapper: tuple[str, ...] = ()
    """The command that runs the server."""
    anywhere: bool = False
    """Whether the attack works against any server: it needs no processes and no upstream."""


_LAN = {"ALLOWED_HOSTS": origins.LAN}
_FEW = {**NO_LIMITS, "RATE_LIMIT": "60/minute", "RATE_LIMIT_ADDRESS": "20/minute"}
_FEW_DESCRIPTORS = ("prlimit", "--nofile=1024:1024")
_LOW_SOFT_LIMIT = ("prlimit", "--nofile=1024:4096")
_SHORT = {"TURN_MAX_S": "4", "UPSTREAM_TIMEOUT_S": "3", "FIRST_TOKEN_TIMEOUT_S": "60"}

VECTORS = [
    Vector("unparsable ids in every field", ids.send_garbage_ids, NO_LIMITS),
    Vector("garbage in Last-Event-ID", ids.send_garbage_last_event_ids),
    Vector("3,000 unknown conversations", ids.ask_in_unknown_conversations, NO_LIMITS),
    Vector("unreadable index and records", ids.poison_the_index),
    Vector("workers killed at once, six times", responses.kill_workers_often),
    Vector("flood of turns without cookies", floods.begin_turns_without_a_cookie, UNTRUSTED),
    Vector("dropped cookie, 700 questions", floods.ask_without_a_cookie, UNTRUSTED),
    Vector("known turn at the rate limit", floods.reconnect_at_the_limit),
    Vector("abandoned questions", floods.stop_begun_turns_quickly),
    Vector("X-Forwarded-For, untrusted peer", floods.forge_addresses, {**_FEW, **UNTRUSTED}),
    Vector("X-Forwarded-For, before a proxy", floods.forge_addresses_through_a_proxy, _FEW),
    Vector("addresses of one IPv6 /64", floods.change_addresses_in_a_network, _FEW),
    Vector("X-Forwarded-Host and -Proto, untrusted", floods.forge_host_and_scheme, UNTRUSTED),
    Vector("anonymous requests", floods.request_anonymously, NO_LIMITS),
    Vector("sessions and turns", floods.store_sessions_and_turns, NO_LIMITS),
    Vector("huge system prompts", floods.store_huge_system_prompts, NO_LIMITS),
    Vector("many conversations", floods.create_many_conversations),
    Vector(
        "conversations without cookies", floods.create_conversations_without_a_cookie, UNTRUSTED
    ),
    Vector("lists of 200, twelve at once", floods.list_large_conversations, NO_LIMITS),
    Vector(
        "one owner's bytes",
        floods.exceed_the_owners_bytes,
        {**NO_LIMITS, "OWNER_MAX_BYTES": "200000"},
    ),
    Vector("Redis is full", floods.fill_redis, {**NO_LIMITS, "REDIS_MAXMEMORY": "50mb"}),
    Vector("bodies of 0.9 MB, 180 at once", floods.keep_request_bodies, NO_LIMITS),
    Vector("responses that nobody reads", holding.leave_responses_unread, NO_LIMITS),
    Vector(
        "event channels without cookies",
        holding.hold_events_without_a_cookie,
        {"CONNECTIONS_MAX": "5,40"},
    ),
    Vector("oversized heads and bodies", floods.send_oversized_requests),
    Vector("too many viewers", floods.hold_many_streams, NO_LIMITS),
    Vector("forged cookies", sessions.forge_cookies, anywhere=True),
    Vector("cookies of a sibling domain", sessions.fix_a_session, anywhere=True),
    Vector("two Cookie fields", sessions.send_two_cookie_fields, anywhere=True),
    Vector("parallel first requests", sessions.lose_first_requests),
    Vector("cookies of requests that store nothing", sessions.collect_cookies, anywhere=True),
    Vector("X-Forwarded-Proto: https, http", sessions.confuse_the_scheme),
    Vector("two Holdlines on one host", sessions.share_a_host),
    Vector("other users' data", sessions.read_others_data),
    Vector("sign out and delete", sessions.sign_out),
    Vector("forged requests, 27 combinations", origins.forge_requests, {**NO_LIMITS, **_LAN}),
    Vector("forged forms and beacons", origins.forge_forms, {**NO_LIMITS, **_LAN}),
    Vector("forged requests with the cookie", origins.use_the_victims_session, _LAN),
    Vector("own pages behind proxies", origins.accept_own_pages),
    Vector("DNS rebinding", origins.rebind_a_name),
    Vector("/v1 without keys from elsewhere", responses.use_v1_from_elsewhere),
    Vector("upstream: redirect loop", upstreams.redirect_in_a_loop),
    Vector("upstream: redirect elsewhere", upstreams.redirect_elsewhere),
    Vector("upstream: error-body bomb", upstreams.send_an_error_bomb),
    Vector("upstream: compressed error bomb", upstreams.send_a_compressed_error_bomb),
    Vector("upstream: endless line", upstreams.send_an_endless_line),
    Vector("upstream: dripping error", upstreams.drip_an_error, _SHORT),
    Vector("upstream: dripping comments", upstreams.drip_comments, _SHORT),
    Vector("upstream: dripping answer", upstreams.drip_an_answer, _SHORT),
    Vector("upstream: silence", upstreams.drip_headers, _SHORT),
    Vector("upstream: addresses in errors", upstreams.name_addresses_in_errors, NO_LIMITS),
    Vector("upstream: connection refused", upstreams.refuse_connections),
    Vector("upstream: forged frames", upstreams.forge_frames),
    Vector("export: nested Markdown", exports.export_nested_markdown, NO_LIMITS),
    Vector("export: costly Markdown", exports.export_costly_markdown, NO_LIMITS),
    Vector("export: ten lists of definitions", exports.leave_questions_of_definitions, NO_LIMITS),
    Vector("export: hostile Markdown", exports.export_hostile_markdown),
    Vector("export: eight at once", exports.export_all_the_time, NO_LIMITS),
    Vector(
        "1,100 idle connections",
        connections.open_idle_connections,
        UNTRUSTED,
        wrapper=_FEW_DESCRIPTORS,
    ),
    Vector("abandoned connections", connections.leave_connections_behind),
    Vector("limit of descriptors", responses.raise_the_descriptors, wrapper=_LOW_SOFT_LIMIT),
    Vector("slow headers", connections.send_slow_headers, anywhere=True),
    Vector("slow request line", connections.send_a_slow_request_line, anywhere=True),
    Vector("slow body", connections.send_a_slow_body, anywhere=True),
    Vector("slow chunk", connections.send_a_slow_chunk, anywhere=True),
    Vector("ambiguous Host", connections.send_ambiguous_hosts),
    Vector("control characters", connections.send_control_characters),
    Vector("ambiguous bodies", connections.send_ambiguous_bodies),
    Vector("request smuggling", connections.smuggle_a_request, anywhere=True),
    Vector("headers of responses", responses.read_headers, anywhere=True),
    Vector("secrets in the log", responses.read_the_log, {"LOG_LEVEL": "debug"}),
    Vector("log under rejected requests", connections.reject_quietly),
    Vector("environment of Redis", responses.read_the_environment),
    Vector("access to Redis", responses.read_files_of_data),
    Vector("world-readable .env", responses.leave_a_readable_env),
    Vector("HOST=0.0.0.0 without ALLOWED_HOSTS", responses.listen_on_all_addresses),
]
