"""The architecture: which module may import which, perform I/O, or name Redis keys."""

import ast
import re
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.processes import ROOT

PRODUCT = sorted(
    [
        ROOT / "server.py",
        *(
            path
            for folder in ("chat", "config", "sessions")
            for path in (ROOT / folder).rglob("*.py")
        ),
    ]
)
IMPORTS = {
    "config": {"config.children", "config.system"},
    "config.children": {"config.system"},
    "config.system": set(),
    "sessions.client": {"config.system"},
    "sessions": {"sessions.client"},
    "sessions.turns": {"sessions", "sessions.client"},
    "sessions.probe": {"sessions", "sessions.client"},
    "chat.errors": set(),
    "chat.event_stream": set(),
    "chat.formats": {"chat.log.records"},
    "chat.log.records": set(),
    "chat.log": {
        "config.system", "sessions", "sessions.turns", "sessions.client", "chat.event_stream",
        "chat.log.records"
    },
    "chat.upstream.error_words": set(),
    "chat.upstream.http": set(),
    "chat.upstream.failures": {"chat.errors", "chat.upstream.error_words", "chat.upstream.http"},
    "chat.upstream.response": {
        "chat.errors", "chat.event_stream", "chat.upstream.failures", "chat.upstream.http"
    },
    "chat.upstream": {
        "chat.errors", "chat.upstream.error_words", "chat.upstream.failures", "chat.upstream.http",
        "chat.upstream.response"
    },
    "chat.turns.continuation": {"chat.errors"},
    "chat.turns.moderation": {"chat.errors", "chat.log.records", "chat.upstream"},
    "chat.turns.context": {"chat.errors", "chat.upstream", "sessions", "sessions.turns"},
    "chat.turns": {
        "config.system", "sessions", "sessions.turns", "sessions.client", "chat.errors", "chat.log",
        "chat.log.records",
        "chat.turns.context", "chat.turns.continuation", "chat.turns.moderation", "chat.upstream",
        "chat.upstream.response"
    },
    "chat.events": {"config.system", "sessions", "sessions.client", "chat.errors"},
    "chat.export": {"config.system"},
    "chat.demo": set(),
    "chat.api.openapi": {"chat.api", "chat.api.conversations", "chat.api.v1"},
    "chat.api.conversations": {
        "sessions", "sessions.client", "chat.api", "chat.api.http", "chat.api.trust",
        "chat.errors", "chat.export"
    },
    "chat.api.v1": {
        "sessions", "sessions.turns", "sessions.client", "chat.api", "chat.api.trust",
        "chat.errors", "chat.formats", "chat.turns", "chat.turns.context"
    },
    "chat.api.http": {"chat.api.trust", "config.system"},
    "chat.api.trust": {"sessions", "sessions.turns", "chat.errors"},
    "chat.api": {
        "config.system", "sessions", "sessions.probe", "sessions.turns", "sessions.client",
        "chat.api.http", "chat.api.trust",
        "chat.errors", "chat.events", "chat.export", "chat.formats", "chat.log",
        "chat.turns"
    },
}  # fmt: skip
"""For each package or stand-alone module, the packages and modules that it may import."""

PURE = {
    "chat.api.http.head",
    "chat.errors",
    "chat.event_stream",
    "chat.export.addresses",
    "chat.export.cjk_emphasis",
    "chat.export.definitions",
    "chat.export.list_numbers",
    "chat.export.literal_marks",
    "chat.export.markdown",
    "chat.export.nested_fences",
    "chat.export.nesting",
    "chat.export.tables",
    "chat.formats.chat_completion",
    "chat.formats.event_channel",
    "chat.formats.ndjson",
    "chat.formats.sse",
    "chat.formats.text",
    "chat.formats.json_object",
    "chat.log.legacy",
    "chat.log.records",
    "chat.turns.continuation.announcement",
    "chat.turns.continuation.policy",
    "chat.turns.continuation.joining",
    "chat.turns.context.client_request",
    "chat.turns.moderation.windows",
    "chat.turns.context.prompt",
    "chat.turns.usage",
    "chat.upstream.response.body",
    "chat.upstream.response.chunk_reader",
    "chat.upstream.response.chunks",
    "chat.upstream.response.endings",
    "chat.upstream.response.inline_reasoning",
    "chat.upstream.response.tool_calls",
    *(
        f"chat.upstream.error_words.{name}"
        for name in ("body", "message", "redaction", "rejections", "retry_after")
    ),
    "chat.upstream.request",
    "chat.upstream.servers",
    "sessions.cookie",
    "sessions.keys",
    "sessions.turns.turn_record",
}
HTTP_EDGES = {"server", "sessions.middleware"} | {
    f"chat.api.{name}"
    for name in (
        "chat_stream",
        "conversations.access",
        "conversations.exports",
        "conversations.routes",
        "error_handlers",
        "events",
        "guard",
        "http.body",
        "http.connection",
        "http.cors",
        "http.methods",
        "http.request",
        "http.server",
        "logout",
        "negotiation",
        "operations",
        "page",
        "parsing",
        "state",
        "trust.hosts",
        "trust.networks",
        "trust.proxies",
        "viewer",
        "v1.access",
        "v1.body",
        "v1.chat_completions",
    )
}
MAX_MODULES = 12
"""Maximum number of modules in a folder; a folder with more has more than one job."""


def name_of(path: Path) -> str:
    """Return the dotted name of a module."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> set[str]:
    """Return every module that a file imports; `from package import module` gives both names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


def package_of(module: str) -> str:
    """Return the key of IMPORTS for a module."""
    return module if module in IMPORTS else module.rpartition(".")[0]


def test_no_module_imports_itself_through_others() -> None:
    modules = {name_of(path): path for path in PRODUCT}
    graph = {name: imports(path) & modules.keys() - {name} for name, path in modules.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_imports_point_one_way(path: Path) -> None:
    module = name_of(path)
    if module in ("server", "chat"):
        return
    package = package_of(module)
    modules = {name_of(other) for other in PRODUCT if other.name != "__init__.py"}
    for other in imports(path) & modules:
        allowed = package_of(other) in IMPORTS[package] | {package}
        assert allowed, f"{module} must not import {other}"


def test_the_import_graph_of_the_packages_has_no_cycle() -> None:
    def reachable(package: str, seen: frozenset[str] = frozenset()) -> set[str]:
        assert package not in seen, f"{package} imports itself through {sorted(seen)}"
        return {package}.union(*(reachable(other, seen | {package}) for other in IMPORTS[package]))

    for package in IMPORTS:
        reachable(package)


def test_no_folder_has_more_than_twelve_modules() -> None:
    folders = Counter(path.parent.relative_to(ROOT) for path in PRODUCT)
    assert {folder: n for folder, n in folders.items() if n > MAX_MODULES + 1} == {}


def test_pure_modules_perform_no_io() -> None:
    performing_io = {
        "asyncio",
        "socket",
        "os",
        "subprocess",
        "redis",
        "sanic",
        "openai",
        "aiohttp",
        "httpx2",
        "logging",
    }
    for path in PRODUCT:
        if name_of(path) in PURE:
            assert not {name.split(".")[0] for name in imports(path)} & performing_io, path


@pytest.mark.parametrize(
    ("package", "modules"),
    [
        ("sanic", HTTP_EDGES),
        (
            "sanic_ext",
            {
                "chat.api.http.methods",
                "chat.api.openapi.document",
                "chat.api.openapi.operation",
            },
        ),
        (
            "openai",
            {"chat.upstream.client", "chat.upstream.failures", "chat.upstream.moderations"},
        ),
        (
            "redis",
            {
                f"sessions.client.{name}"
                for name in ("connection", "errors", "faults", "notifications")
            },
        ),
        ("httptools", {"chat.upstream.http.connection", "chat.upstream.http.parser"}),
        ("config.settings", {"config.banner", "server"}),
    ],
)
def test_each_dependency_is_imported_only_by_its_own_modules(
    package: str, modules: set[str]
) -> None:
    using = {
        name_of(path)
        for path in PRODUCT
        if any(name == package or name.startswith(f"{package}.") for name in imports(path))
    }
    assert using == modules


def test_leases_depend_on_no_workers_clock() -> None:
    for path in PRODUCT:
        if name_of(path) in ("sessions.turns.turn_store", "sessions.client.scripts"):
            assert not imports(path) & {"time", "datetime"}, path


def test_commands_reach_redis_through_one_module() -> None:
    """Every other module of the product uses a client only as an argument of scripts.py."""
    method = re.compile(r"\bredis\.(?!exceptions|asyncio|backoff|pipelines|aclose|pubsub)[a-z_]+\(")
    using = {name_of(path) for path in PRODUCT if method.search(path.read_text())}
    assert using <= {
        f"sessions.client.{name}" for name in ("scripts", "connection", "info", "notifications")
    }


def test_redis_key_names_are_defined_in_one_module() -> None:
    pattern = re.compile(r"holdline:")
    modules = {name_of(path) for path in PRODUCT if pattern.search(path.read_text())}
    # In the other two the text is part of an error message.
    assert modules <= {"sessions.keys", "sessions.client.faults", "server"}


@pytest.mark.parametrize(
    "path", sorted((ROOT / "sessions" / "lua").glob("*.lua")), ids=lambda path: path.stem
)
def test_every_lua_script_documents_its_keys_arguments_and_result(path: Path) -> None:
    header = path.read_text().split("\n\n")[0]
    assert all(line.startswith("--") for line in header.splitlines())
    for word in ("KEYS", "ARGV", "Result"):
        assert f"-- {word}  " in header
    assert "-- Idempotent: " in header or "-- Changes nothing." in header


def test_no_source_file_is_longer_than_320_lines() -> None:
    scripts = sorted((ROOT / "frontend" / "js").rglob("*.js"))
    long = {
        path.name: n
        for path in [*PRODUCT, *scripts]
        if (n := len(path.read_text().splitlines())) > 320
    }
    assert long == {}
