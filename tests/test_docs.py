"""The documents match the code: settings, routes, errors, limits, tests, links and commands."""

import ast
import json
import logging
import re
import tomllib
from pathlib import Path
from typing import Any

import httpx
import pytest
from sanic import Sanic

from chat import errors
from chat.api.openapi.document import build_document
from chat.api.openapi.routes import OPERATIONS
from chat.events import feeds, subscriber
from chat.formats import event_channel, sse
from chat.log import batches, log, tail_viewer
from chat.turns import registry
from config import supervisor
from config.children import append_only_file, embedded_redis
from config.settings import Settings
from server import create_app
from tests.conftest import KEY
from tests.fake_upstream import ScriptedUpstream
from tests.processes import ROOT, holdline
from tests.streams import ask, asking, cookie_of

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
BEHAVIOUR = (ROOT / "docs" / "behaviour.md").read_text()
READMES = ["README.md", "README.zh-CN.md"]


@pytest.fixture(scope="module")
def app() -> Sanic[Any, Any]:
    """Return the application of `server.py`, not running; Sanic allows one with this name."""
    return create_app(Settings.model_construct(), "redis://localhost")


@pytest.mark.parametrize("readme", READMES)
def test_the_readme_lists_every_setting_with_its_default(readme: str) -> None:
    rows = re.findall(
        r"^\| `([A-Z_]+)` \| (?:`([^`]*)`)? ?\|", (ROOT / readme).read_text(), re.MULTILINE
    )
    defaults = {}
    for name, field in Settings.model_fields.items():
        empty = field.default is None or field.default in ("", (), {})
        defaults[name.upper()] = "" if empty else str(field.default)
    assert dict(rows) == defaults
    assert [name for name, _ in rows] == list(defaults)


def test_every_route_is_documented_and_every_documented_route_exists(app: Sanic[Any, Any]) -> None:
    served = set()
    for route in app.router.routes:
        path = "/" + re.sub(r"<(\w+):\w+>", r"{\1}", route.path)
        served |= {(method, path.rstrip("/")) for method in route.methods or ()}
    named = re.findall(r"`(GET|POST|PUT|PATCH|DELETE)\s+(/[^`\s]*)`", BEHAVIOUR)
    documented = {(method, path.rstrip("/")) for method, path in named}
    served = {(method, path) for method, path in served if method not in ("HEAD", "OPTIONS")}
    files = {("GET", path) for _, path in served if re.match(r"/(js|vendor|style|favicon)", path)}
    assert documented == served - files
    for _, path in files:
        assert f"`/{path.split('/')[1]}" in BEHAVIOUR


def test_every_route_is_described_in_openapi_and_every_description_is_a_route(
    app: Sanic[Any, Any],
) -> None:
    served = {
        (method.lower(), re.sub(r"<(\w+):\w+>", r"{\1}", f"/{route.path}"), route.handler)
        for route in app.router.routes
        if not getattr(route.extra, "static", False)
        for method in route.methods - {"HEAD", "OPTIONS"}
    }
    described = [(one.method, one.path.rstrip("/") or "/", one.handler) for one in OPERATIONS]
    assert set(described) == served
    assert len(described) == len(served)


def test_the_openapi_document_has_the_version_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert json.loads(build_document(needs_key=False))["info"]["version"] == project["version"]


def test_the_documented_errors_match_the_code() -> None:
    table = set(re.findall(r"^\| (\d{3}) \| `(\w+)` \|", BEHAVIOUR, re.MULTILINE))
    raised = {
        (str(kind.status), kind.type)
        for kind in vars(errors).values()
        if isinstance(kind, type)
        and issubclass(kind, errors.HoldlineError)
        and not issubclass(kind, errors.UpstreamError)
    }
    assert {(status, kind) for status, kind in table if kind != "http"} == raised


def test_the_documented_failures_match_the_code() -> None:
    table = dict(re.findall(r"^\| `(\w+)` \| .* \| (yes|no) \|$", BEHAVIOUR, re.MULTILINE))
    raised = {}
    for path in (ROOT / "chat").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                name, kind = node.func.id, node.args[0]
                category = getattr(errors, name, None)
                if (
                    isinstance(category, type)
                    and issubclass(category, errors.UpstreamError)
                    and isinstance(kind, ast.Constant)
                ):
                    raised[str(kind.value)] = "yes" if category.retryable else "no"
    exceeded = errors.ContextExceeded("", None, None)
    raised[exceeded.kind] = "yes" if exceeded.retryable else "no"
    raised["length"] = "no"  # UpstreamFailed("length") is a reason to continue and ends no turn
    assert table == raised


def test_the_documented_limits_match_the_code(app: Sanic[Any, Any]) -> None:
    assert f"a comment every {tail_viewer.HEARTBEAT_S} s" in BEHAVIOUR
    assert f"reached {log.MAX_LOG_BYTES >> 20} MiB" in BEHAVIOUR
    assert f"more than {registry.MAX_VIEWERS} viewers" in BEHAVIOUR
    assert f"at most {feeds.MAX_SUBSCRIBERS} connections of a session" in BEHAVIOUR
    assert f"more than {feeds.MAX_SUBSCRIBERS} event channels" in BEHAVIOUR
    assert f"lets {subscriber.MAX_WAITING} events wait" in BEHAVIOUR
    assert f"after every {tail_viewer.HEARTBEAT_S} s without an" in BEHAVIOUR
    assert event_channel.OPENING.startswith(b"retry: 1000\n")
    assert (batches.MIN_INTERVAL_S, batches.MAX_INTERVAL_S) == (0.03, 0.08)  # "30 to 80 ms"
    assert f"over {app.config.REQUEST_MAX_HEADER_SIZE >> 10} KiB" in BEHAVIOUR
    assert f"over {app.config.REQUEST_MAX_SIZE >> 20} MiB" in BEHAVIOUR
    assert b"retry: 5000\n" in sse.RETRY_LATER
    assert sse.ASK_AGAIN.startswith(b"retry: 500\n")
    assert sse.encode("turn-0123456789ab", 0, b"\0T{}").startswith(b"retry: 1000\n")


def test_the_documented_stop_timeouts_exceed_the_sum_of_the_stages() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    drain_s = Settings.model_fields["drain_s"].default
    redis_s = append_only_file.STOP_TIMEOUT_S + embedded_redis.STOP_TIMEOUT_S
    longest_s = drain_s + supervisor.STOP_TIMEOUT_S + redis_s
    assert f"| sum | {longest_s:.0f} s |" in text
    limits = re.findall(
        r"(?:TimeoutStopSec=|stop -t |stop-timeout |stop_grace_period: "
        r"|terminationGracePeriodSeconds: )(\d+)",
        text + (ROOT / "config" / "holdline.service").read_text(),
    )
    assert len(limits) == 7
    assert all(int(limit) > longest_s for limit in limits)


def test_every_documented_promise_names_its_test() -> None:
    bullets = re.findall(r"^- .*(?:\n  .*)*", BEHAVIOUR, re.MULTILINE)
    assert len(bullets) > 40
    assert [bullet for bullet in bullets if "::test_" not in bullet] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_everything_that_a_document_names_exists(document: Path) -> None:
    text = document.read_text()
    for link in re.findall(r"\]\((?!https?://)([^)#]+)", text):
        assert (document.parent / link).exists(), f"{document.name} links to {link}"
    for file, test in re.findall(r"`(?:tests/)?((?:\w+/)*test_\w+\.py)::(\w+)`", text):
        (path,) = (ROOT / "tests").rglob(file)
        assert f"def {test}(" in path.read_text(), f"{document.name} names {test}"
    for path in re.findall(r"`((?:chat|config|sessions|tests|frontend|docs)/[\w/.-]+)`", text):
        assert (ROOT / path).exists(), f"{document.name} names {path}"
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for target in re.findall(r"\bmake ([a-z-]+)\b(?=`|\s+#|$)", text, re.MULTILINE):
        assert target in targets, f"{document.name} names the target {target}"
    known = {name.upper() for name in Settings.model_fields}
    for variable in re.findall(r"(?:^|[`\s])([A-Z]+(?:_[A-Z]+)+)=", text, re.MULTILINE):
        assert variable in known, f"{document.name} sets {variable}"


def test_the_readmes_show_the_same_commands() -> None:
    def blocks(name: str) -> list[str]:
        found = re.findall(
            r"^```\w+\n(.*?)^```", (ROOT / name).read_text(), re.MULTILINE | re.DOTALL
        )
        return [re.sub(r"[ ]*#.*", "", block) for block in found]

    assert blocks("README.md") == blocks("README.zh-CN.md")


async def test_no_conversation_text_cookie_or_key_is_logged(
    redis_url: str, upstream: ScriptedUpstream, question: str
) -> None:
    """Cover an answer, a failure, rejected requests and a shutdown, with LOG_LEVEL=debug."""
    model = {"OPENAI_BASE_URL": upstream.base_url, "OPENAI_API_KEY": KEY, "CHAT_MODEL": "m"}
    async with holdline(REDIS_URL=redis_url, LOG_LEVEL="debug", **model) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            await ask(client, upstream, question, "an answer of saffron")
            await ask_and_fail(client, upstream, f"{question} again")
            assert (await client.get(f"/api/nothing?message={question}")).status_code == 404
            assert (await client.post("/api/chat_stream/", content=question)).status_code == 400
            cookie = cookie_of(client).partition("=")[2]
        assert await server.stop() == 0
        logged = server.read_log()
    assert (
        logging.getLevelName(logging.WARNING) in logged
    )  # the failure is logged, without the text
    for secret in (question, "saffron", cookie, KEY, "crimson"):
        assert secret not in logged


async def ask_and_fail(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    async with asking(client, message=question) as source:
        exchange = await upstream.exchange(question)
        exchange.reply(400, {"error": {"message": f"crimson: {question}"}})
        assert [event.event async for event in source.aiter_sse()][-1] == "failed"
