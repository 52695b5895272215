"""The start ends, waits for Redis, or warns: a test for each kind of Redis."""

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import trustme
from redis.asyncio import Redis

from sessions.client import greeting
from sessions.client.connection import connect
from sessions.client.faults import find_fault
from sessions.client.scripts import call
from sessions.probe import requirements, startup
from sessions.probe import settings as server_settings
from sessions.probe.settings import find_server_fault, find_warnings, list_warnings
from sessions.probe.startup import find_startup_fault
from tests.own_redis import OwnRedis, own_redis
from tests.processes import (
    PATIENCE_S,
    ROOT,
    cluster_options,
    free_ports,
    redis_cluster,
    redis_server,
    wait_for_cluster_info,
)
from tests.proxy import redis_proxy

PASSWORD = "a-secret-of-the-test"
USER = f"hold:{PASSWORD}@"


async def set_user(admin: Any, user: str, *rules: str) -> None:
    """Change the rights of a user of Redis."""
    await admin.execute_command("ACL", "SETUSER", user, *rules)


@dataclass
class Place:
    """A Redis that listens on a Unix socket and on a port."""

    redis: OwnRedis
    port: int

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    async def allow(self, *rules: str) -> str:
        """Give the user `hold` these rights; return the user's URL."""
        await set_user(self.redis.admin, "hold", "reset", "on", f">{PASSWORD}", *rules)
        return self.url.replace("//", f"//{USER}")


@asynccontextmanager
async def redis_on_port(*options: str) -> AsyncIterator[Place]:
    (port,) = free_ports(1)
    async with own_redis("--port", str(port), *options) as redis:
        yield Place(redis, port)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no result depend on the speed of the machine."""
    monkeypatch.setattr(startup, "_TIME_LIMIT_S", PATIENCE_S)
    monkeypatch.setattr(greeting, "_MAX_WAIT_S", PATIENCE_S)


@pytest_asyncio.fixture(scope="module")
async def place() -> AsyncIterator[Place]:
    async with redis_on_port("--databases", "4") as found:
        yield found


async def find_rejection(url: str) -> str:
    """Return the line with which the start ends; fail if Redis serves, or is only down."""
    fault = await find_startup_fault(url)
    assert fault, url
    assert fault.remedy, fault
    assert PASSWORD not in str(fault)
    return str(fault)


async def find_outage(url: str) -> str:
    """Return why the answers wait; fail if Redis serves, or rejects."""
    fault = await find_startup_fault(url)
    assert fault, url
    assert not fault.remedy, fault
    return fault.reason


# Rights


async def test_a_user_without_one_of_the_commands_is_rejected_by_name(place: Place) -> None:
    commands = (*requirements.COMMANDS, *requirements.REMOVALS)
    tried = {name for name, _ in commands} | {
        "EVALSHA", "PUBLISH", "RENAME", "SCRIPT", "SUBSCRIBE", "TIME", "UNSUBSCRIBE", "ZDIFF",
    }  # fmt: skip
    for name in sorted(tried):
        url = await place.allow("~*", "&*", "+@all", f"-{name}")
        assert name.lower() in await find_rejection(url), name
    assert not await place.redis.admin.keys("*")


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        (["~other:*", "&*", "+@all"], "a key: allow the user of REDIS_URL ~holdline:*"),
        (["~holdline:{*", "&*", "+@all"], "a key: allow the user of REDIS_URL ~holdline:*"),
        (["&*", "+@all"], "a key: allow the user of REDIS_URL ~holdline:*"),
        (["~*", "resetchannels", "+@all"], "a channel: allow the user of REDIS_URL &holdline:*"),
        (
            ["~*", "resetchannels", "&other:*", "+@all"],
            "a channel: allow the user of REDIS_URL &holdline:*",
        ),
        (["~*", "resetchannels", "&holdline:stops", "+@all"], "a channel: allow the user of"),
        (["~*", "&*", "+@read"], "rejects the command"),
        (["~*", "&*", "+@all", "-@scripting"], "rejects the command"),
        (["~*", "&*", "+@all", "-@pubsub"], "rejects the command"),
        (["~*", "&*", "+@all", "off"], "rejects the user or the password"),
        (["~*", "&*", "+@all", "resetpass", ">other"], "rejects the user or the password"),
    ],
)
async def test_a_user_without_a_right_is_rejected(
    place: Place, rules: list[str], reason: str
) -> None:
    assert reason in await find_rejection(await place.allow(*rules))


@pytest.mark.parametrize(
    "rules",
    [
        ["~*", "&*", "+@all"],
        ["~holdline:*", "resetchannels", "&holdline:*", "+@all", "-@dangerous", "+info"],
        ["~holdline:*", "resetchannels", "&holdline:*", "+@all", "-info", "-memory", "-config"],
    ],
)
async def test_a_user_with_the_documented_rights_is_accepted(
    place: Place, rules: list[str]
) -> None:
    assert await find_startup_fault(await place.allow(*rules)) is None
    assert await find_startup_fault(place.url + "/3") is None
    assert not await place.redis.admin.keys("*")


def test_every_command_of_a_script_or_a_store_is_tried() -> None:
    scripts = " ".join(path.read_text() for path in (ROOT / "sessions" / "lua").rglob("*.lua"))
    used = set(re.findall(r"redis\.p?call\('(\w+)'", scripts))
    paths = [*(ROOT / "sessions").glob("*.py"), *(ROOT / "sessions" / "turns").glob("*.py")]
    used |= set(re.findall(r"\"([A-Z]+)\",\s+\[", " ".join(path.read_text() for path in paths)))
    module = Path(requirements.__file__).read_text()
    optional = {"MEMORY"}  # its script works without
    assert used - set(re.findall(r"\(\"([A-Z]+)\", ", module)) == optional


# The URL and the server


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("redis://127.0.0.1:{port}/99", "no database of this number"),
        ("redis://127.0.0.1:{port}?db=99", "no database of this number"),
        ("redis://127.0.0.1:{port}/x", "must be the number of a database"),
        ("redis://:{password}@127.0.0.1:{port}", "Redis has none"),
        ("redis://other:{password}@127.0.0.1:{port}", "the user or the password"),
        ("redis://:{password}/x@127.0.0.1:{port}", "percent-encode"),
        ("redis://:{password}#x@127.0.0.1:{port}", "percent-encode"),
        ("redis://:{password}?x@127.0.0.1:{port}", "percent-encode"),
        ("redis://127.0.0.1:{port}?ssl=true", "begin the URL with rediss://"),
        ("redis://127.0.0.1:{port}?TLS=1", "begin the URL with rediss://"),
        ("redis://127.0.0.1:{port}?ssl_ca_certs=/ca.pem", "begins with rediss://"),
        ("redis://127.0.0.1:{port}?family=6", "unknown parameter family; known are client_name"),
        ("redis://127.0.0.1:{port}?decode_responses=true", "unknown parameter decode_responses"),
        ("redis://127.0.0.1:{port}?socket_timeout=0", "socket_timeout must be above 0"),
        ("redis://127.0.0.1:{port}?socket_timeout=nan", "socket_timeout must be above 0"),
        ("redis://127.0.0.1:{port}?socket_connect_timeout=-1", "socket_connect_timeout must be"),
        ("redis://127.0.0.1:{port}?max_connections=abc", "max_connections must be above 0"),
        ("redis://127.0.0.1:{port}?health_check_interval=", "must be a whole number, and below"),
        ("redis://127.0.0.1:{port}?max_connections=many", "max_connections must be above 0"),
        ("rediss://127.0.0.1:{port}?ssl_ca_certs=/missing.pem", "ssl_ca_certs cannot be read"),
        ("rediss://127.0.0.1:{port}?ssl_cert_reqs=CERT_NONE", "required, optional, none"),
        ("redis://127.0.0.1:{port}?client_name=my%20app", "Client names cannot contain spaces"),
        ("redis+cluster://127.0.0.1:{port}", "not a node of a Redis Cluster"),
        ("redis+cluster://127.0.0.1:{port}/1", "has no numbered databases"),
    ],
)
async def test_a_wrong_url_is_rejected(place: Place, template: str, reason: str) -> None:
    url = template.format(port=place.port, password=PASSWORD)
    assert reason in await find_rejection(url)


async def test_a_url_without_the_password_is_rejected(place: Place) -> None:
    await set_user(place.redis.admin, "default", "resetpass", ">other")
    try:
        assert "requires a password: add it to REDIS_URL" in await find_rejection(place.url)
        wrong = place.url.replace("//", f"//:{PASSWORD}@")
        assert "the user or the password" in await find_rejection(wrong)
    finally:
        await set_user(place.redis.admin, "default", "nopass")


@pytest.mark.parametrize(
    ("options", "path", "reason"),
    [
        (["--rename-command", "EVALSHA", ""], "", "Redis has no command EVALSHA"),
        (["--rename-command", "SUBSCRIBE", "other"], "", "Redis has no command SUBSCRIBE"),
        (["--rename-command", "ZDIFF", ""], "", "no command ZDIFF: use Redis 6.2 or later"),
        (
            ["--rename-command", "ZDIFF", "", "--rename-command", "MIGRATE", "ZDIFF"],
            "",
            "wrong number of arguments",
        ),
        (["--cluster-enabled", "yes"], "/1", "has no numbered databases"),
    ],
)
async def test_a_redis_with_unsuitable_settings_is_rejected(
    options: list[str], path: str, reason: str
) -> None:
    async with redis_server(*options) as url:
        suffix = f"?db={path[1:]}" if path else ""
        assert reason in await find_rejection(url + suffix)


@pytest.mark.parametrize(
    "error",
    [
        b"ERR unsupported command 'PUBLISH'",
        b"ERR command not allowed",
        b"ERR operation not permitted",
        b"ERR invalid DB index",
        b"ERR this feature is disabled",
        b"DENIED by the administrator",
        b"NOPERM this plan has no scripts",
        b"WRONGPASS invalid or missing token",
    ],
)
async def test_any_other_rejection_ends_the_start_with_its_text(place: Place, error: bytes) -> None:
    text = error.decode().removeprefix("ERR ").removeprefix("NOPERM ").removeprefix("WRONGPASS ")
    expected = f"Redis rejects a command ({text}): correct REDIS_URL, or this setting of Redis"
    async with redis_proxy(place.redis.url) as proxy:
        proxy.reply_with_error(error)
        for url in (proxy.url, proxy.url + "/1", proxy.url.replace("redis:", "redis+cluster:")):
            assert await find_rejection(url) == expected


async def test_a_sentinel_is_rejected(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    (tmp_path / "sentinel.conf").write_text(f"port {port}\ndir {tmp_path}\n")
    process = await asyncio.create_subprocess_exec(
        "redis-server", str(tmp_path / "sentinel.conf"), "--sentinel",
        stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    async with asyncio.timeout(PATIENCE_S):
        while not (fault := await find_startup_fault(f"redis://127.0.0.1:{port}")) or (
            fault.reason == "Redis refuses connections"
        ):
            await asyncio.sleep(0.02)
    process.terminate()
    await process.wait()
    assert "is a Redis Sentinel: name the master" in str(fault)


async def test_a_cluster_is_accepted_as_such_only() -> None:
    async with redis_cluster() as url:
        assert await find_startup_fault(url) is None
        nodes = url.removeprefix("redis+cluster://").split(",")
        found = {await find_rejection(f"redis://{node}") for node in nodes}
        assert any("begin REDIS_URL with redis+cluster://" in one for one in found)
        await set_user_of_nodes(
            nodes, "on", f">{PASSWORD}", "~holdline:*", "resetchannels", "&holdline:*"
        )
        await set_user_of_nodes(nodes, "+@all", "-@dangerous", "+info")
        url = url.replace("//", f"//{USER}")
        assert await find_startup_fault(url) is None
        for right in ("ssubscribe", "spublish", "cluster|slots", "zdiff", "evalsha"):
            await set_user_of_nodes(nodes, f"-{right}")
            assert f"rejects the command {right}" in await find_rejection(url)
            await set_user_of_nodes(nodes, f"+{right}")


async def test_a_cluster_without_a_command_is_rejected() -> None:
    ((port, _, options),) = cluster_options(1)
    async with own_redis(*options, "--rename-command", "SPUBLISH", "") as redis:
        admin: Any = redis.admin
        await admin.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
        async with asyncio.timeout(PATIENCE_S):
            await wait_for_cluster_info(admin, cluster_state="ok")
        found = await find_rejection(f"redis+cluster://127.0.0.1:{port}")
    assert "Redis has no command SPUBLISH" in found


async def set_user_of_nodes(nodes: list[str], *rules: str) -> None:
    """Change the rights of the user of every node of a Cluster."""
    for node in nodes:
        async with Redis.from_url(f"redis://{node}") as admin:
            await set_user(admin, "hold", *rules)


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def send(text: bytes, *, unasked: bool = False) -> Serve:
    """Return a server that sends a text and closes the connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not unasked:
            await reader.read(1)
        writer.write(text)
        await asyncio.sleep(0)
        writer.close()

    return serve


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster"])
@pytest.mark.parametrize(
    ("serve", "reason"),
    [
        (send(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "is not a Redis"),
        (send(b"SSH-2.0-OpenSSH_9.2\r\n", unasked=True), "is not a Redis"),
        (
            send(b"-DENIED Redis is running in protected mode because\r\n", unasked=True),
            "protected",
        ),
    ],
    ids=["http", "ssh", "protected"],
)
async def test_another_server_is_rejected(scheme: str, serve: Serve, reason: str) -> None:
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        assert reason in await find_rejection(url)


def test_an_unexpected_error_is_named_and_does_not_end_the_start(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    async def fail(url: str) -> None:
        raise UnicodeError("label empty or too long")

    monkeypatch.setattr(startup, "find_startup_fault", fail)
    startup.try_redis("redis://127.0.0.1")
    assert "Redis is unavailable (UnicodeError): the server starts" in caplog.text
    assert "Traceback" not in capfd.readouterr().err


# TLS


@dataclass
class Authority:
    """A private CA, its file, and the context of a server that it certifies for `localhost`."""

    ca: trustme.CA
    file: Path
    context: ssl.SSLContext


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    ca, context = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("localhost").configure_cert(context)
    file = tmp_path_factory.mktemp("tls") / "ca.pem"
    ca.cert_pem.write_to_path(str(file))
    return Authority(ca, file, context)


async def test_a_certificate_of_a_private_ca_is_accepted_if_the_url_names_it(
    place: Place, authority: Authority
) -> None:
    async with redis_proxy(place.redis.url, authority.context) as proxy:
        named = f"{proxy.url}?ssl_ca_certs={authority.file}"
        assert await find_startup_fault(named) is None
        assert "name the file of its CA in REDIS_URL" in await find_rejection(proxy.url)
        assert "is for another host" in await find_rejection(
            named.replace("localhost", "127.0.0.1")
        )
        assert "Redis requires TLS" in await find_rejection(proxy.url.replace("rediss", "redis"))
        cluster = proxy.url.replace("rediss", "redis+cluster")
        assert "Redis requires TLS" in await find_rejection(cluster)


async def test_a_redis_without_tls_is_rejected_if_the_url_requires_tls(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(startup, "_TIME_LIMIT_S", 0.5)  # Redis never replies to the handshake
    for scheme in ("rediss", "rediss+cluster"):
        url = place.url.replace("redis:", f"{scheme}:")
        assert "Redis does not use TLS" in await find_rejection(url)


async def test_a_client_certificate_is_sent_if_the_url_names_it(
    place: Place, authority: Authority, tmp_path: Path
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.ca.issue_cert("localhost").configure_cert(context)
    authority.ca.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    client = authority.ca.issue_cert("holdline")
    client.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    client.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    # Python's server closes the connection without the alert of OpenSSL.
    alert = ssl.SSLError(1, "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] certificate required")
    assert "requires a client certificate: name its files" in str(find_fault(alert))
    async with redis_proxy(place.redis.url, context) as proxy:
        url = f"{proxy.url}?ssl_ca_certs={authority.file}"
        assert await find_startup_fault(url)
        files = f"&ssl_certfile={tmp_path}/cert.pem&ssl_keyfile={tmp_path}/key.pem"
        assert await find_startup_fault(url + files) is None


# Down


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (b"LOADING Redis is loading the dataset in memory", "is loading its data"),
        (b"CLUSTERDOWN The cluster is down", "has no node for some keys"),
        (b"MASTERDOWN Link with MASTER is down", "has lost its master"),
        (b"ASK 1 192.0.2.1:6379", "the Redis Cluster is moving keys"),
        (b"BUSY Redis is busy running a script.", "is busy with a script"),
        (b"READONLY You can't write against a read only replica.", "is a replica"),
        (b"NOREPLICAS Not enough good replicas to write.", "too few replicas"),
        (b"MISCONF Redis is configured to save RDB snapshots", "cannot write to its disk"),
        (b"TRYAGAIN Multiple keys request during rehashing of slot", "is moving keys"),
        (b"ERR max number of clients reached", "maximum of connections"),
        (b"OOM command not allowed when used memory > 'maxmemory'.", "memory of Redis is full"),
        (b"ERR Connection timed out", "Connection timed out"),
        (b"ERR too many requests", "too many requests"),
        (b"upstream failure", "upstream failure"),
        (b"no upstream host", "no upstream host"),
        (b"WRONGTYPE Operation against a key holding the wrong kind of value", "WRONGTYPE"),
    ],
)
async def test_an_error_that_may_pass_does_not_end_the_start(
    place: Place, error: bytes, reason: str
) -> None:
    async with redis_proxy(place.redis.url) as proxy:
        proxy.reply_with_error(error)
        assert reason in await find_outage(proxy.url)


async def test_a_redis_that_cannot_be_reached_does_not_end_the_start(place: Place) -> None:
    async with redis_proxy(place.redis.url) as proxy:
        proxy.close_connections()
        assert "connection to Redis was lost" in await find_outage(proxy.url)
        proxy.refuse_connections()
        assert "refuses connections" in await find_outage(proxy.url)
        cluster = proxy.url.replace("redis://", "redis+cluster://")
        assert "refuses connections" in await find_outage(cluster)
    unknown = find_fault(socket.gaierror(-2, "Name or service not known"))
    assert (unknown.reason, unknown.remedy) == ("the host of REDIS_URL has no known address", "")
    assert "socket of Redis does not exist" in await find_outage("unix:///missing/redis.sock")
    async with redis_server("--replicaof", "127.0.0.1", "1") as url:
        assert "is a replica, which accepts no writes" in await find_outage(url)


async def test_a_silent_redis_delays_the_start_by_a_bounded_time(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(startup, "_TIME_LIMIT_S", 0.2)
    monkeypatch.setattr(greeting, "_MAX_WAIT_S", 0.2)
    async with redis_proxy(place.redis.url) as proxy:
        proxy.stall()
        assert await find_outage(proxy.url) == "Redis does not reply"
    monkeypatch.setattr(startup, "_TIME_LIMIT_WITH_LOOKUPS_S", 0.01)
    startup.try_redis(proxy.url)  # kills its process, and returns


# Settings of Redis


@pytest.mark.parametrize(
    ("version", "in_cluster", "is_too_old"),
    [
        ("5.0.14", False, True),
        ("6.0.16", False, True),
        ("6.2.0", False, False),
        ("6.2.14", True, True),
        ("7.0.15", True, False),
        ("7.2.4", True, False),
        ("8.4.0", False, False),
        ("10.0.0", True, False),
        ("255.255.255", False, False),
        ("unstable", False, False),
        ("", False, False),
    ],
)
def test_a_version_that_lacks_a_command_is_rejected(
    version: str, *, in_cluster: bool, is_too_old: bool
) -> None:
    fault = find_server_fault({"redis_version": version}, in_cluster=in_cluster)
    assert (fault is not None) == is_too_old
    assert fault is None or (version in fault.reason and "or later" in fault.remedy)


@pytest.mark.parametrize(
    ("policy", "aof", "save", "expected"),
    [
        ("noeviction", "1", "", []),
        ("noeviction", "1", None, []),
        ("allkeys-lru", "1", "", ["maxmemory-policy allkeys-lru, Redis deletes conversations"]),
        ("volatile-ttl", "1", "", ["maxmemory-policy volatile-ttl, Redis deletes conversations"]),
        ("noeviction", "0", "", ["loses all conversations, because it stores nothing on disk"]),
        ("noeviction", "0", "3600 1", ["loses all conversations since its last snapshot: set"]),
        ("noeviction", "0", None, ["since its last snapshot, if it makes any"]),
        ("allkeys-random", "0", "", ["allkeys-random", "nothing on disk"]),
    ],
)
def test_settings_that_may_lose_conversations_are_warnings(
    policy: str, aof: str, save: str | None, expected: list[str]
) -> None:
    found = list_warnings({"maxmemory_policy": policy}, {"aof_enabled": aof}, save)
    assert len(found) == len(expected)
    assert all(part in warning for part, warning in zip(expected, found, strict=True))


async def read_warnings(url: str) -> list[str]:
    async with aclosing(connect(url)) as redis:
        return await find_warnings(redis)


async def test_the_settings_of_a_running_redis_are_read() -> None:
    async with redis_on_port("--appendonly", "no", "--maxmemory-policy", "allkeys-lfu") as place:
        evicts, persists = await read_warnings(place.url)
        assert "allkeys-lfu" in evicts
        assert "nothing on disk" in persists
        _, persists = await read_warnings(await place.allow("~*", "&*", "+@all", "-config"))
        assert "if it makes any" in persists
        (unknown,) = await read_warnings(await place.allow("~*", "&*", "+@all", "-info"))
        assert "Redis's ACL rejects the command info" in unknown


@pytest.mark.parametrize("reply", [[], [b"save"], 5, {b"save": b""}])
async def test_an_unknown_reply_to_the_question_for_settings_ends_no_worker(
    reply: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(redis: Any, name: str, *rest: Any) -> Any:
        return reply if name == "CONFIG" else await call(redis, name, *rest)

    monkeypatch.setattr(server_settings, "call", answer)
    async with redis_on_port("--appendonly", "no") as place, aclosing(connect(place.url)) as redis:
        await server_settings.log_warnings(redis)
    assert caplog.messages
