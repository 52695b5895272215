"""The shape of the code: who may import whom, who does I/O, who names keys."""

import ast
import re
from pathlib import Path

import pytest

from tests.processes import ROOT

PRODUCT = sorted(
    [ROOT / "server.py", *(path for d in ("chat", "config", "sessions") for path in (ROOT / d).glob("*.py"))]
)
LAYERS = [
    {"config.settings", "config.workers"},
    {
        "sessions.keys",
        "sessions.cookie",
        "sessions.calls",
        "sessions.connection",
        "sessions.notifications",
        "sessions.embedded",
    },
    {"sessions.store", "sessions.turn_store"},
    {"chat.frames", "chat.context", "chat.errors", "chat.seam", "chat.http_connection", "chat.transport"},
    {"chat.answer", "chat.log", "chat.history"},
    {"chat.committer", "chat.upstream"},
    {"chat.following", "chat.generation", "chat.asking"},
    {"chat.turns"},
    {"sessions.middleware", "chat.guard", "chat.problems", "chat.parsing", "chat.rendering"},
    {"chat.routes", "chat.conversation_routes", "chat.operations"},
    {"server"},
]
"""From the ground up: a module imports only from what lies below it, or beside it in its own layer."""

PURE = {"chat.frames", "chat.context", "chat.errors", "sessions.keys", "sessions.cookie"}
HTTP_EDGES = {"server", "sessions.middleware"} | {
    f"chat.{name}" for name in ("routes", "conversation_routes", "parsing", "guard", "operations", "problems")
}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> set[str]:
    """Every module that a file imports, `from package import module` resolved to the module."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


def ours(path: Path) -> set[str]:
    known = {name_of(other) for other in PRODUCT}
    return imports(path) & known - {"chat", "config", "sessions"}


def layer(module: str) -> int:
    return next((i for i, modules in enumerate(LAYERS) if module in modules), -1)


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_imports_go_one_way(path: Path) -> None:
    module = name_of(path)
    if layer(module) < 0:
        assert module in {"chat", "config", "sessions"} or module.startswith("chat.demo")
        return
    for other in ours(path):
        assert layer(other) <= layer(module), f"{module} must not import {other}"


def test_what_is_pure_does_no_io() -> None:
    does_io = {
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
            assert not {name.split(".")[0] for name in imports(path)} & does_io, path


@pytest.mark.parametrize(
    ("package", "modules"),
    [
        ("sanic", HTTP_EDGES),
        ("sanic_ext", {"server"}),
        ("openai", {"chat.upstream"}),
        ("redis", {"sessions.connection"}),
        ("httptools", {"chat.http_connection"}),
        ("config.settings", {"server"}),
    ],
)
def test_a_dependency_has_its_place(package: str, modules: set[str]) -> None:
    using = {
        name_of(path)
        for path in PRODUCT
        if any(name == package or name.startswith(f"{package}.") for name in imports(path))
    }
    assert using == modules


def test_keys_are_named_in_one_place() -> None:
    pattern = re.compile(r"holdline:")
    naming = {name_of(path) for path in PRODUCT if pattern.search(path.read_text())}
    assert naming <= {"sessions.keys", "server"}  # the server's is a complaint, not a key


@pytest.mark.parametrize(
    "path", sorted((ROOT / "sessions" / "lua").glob("*.lua")), ids=lambda path: path.stem
)
def test_every_script_says_what_it_takes_and_gives(path: Path) -> None:
    head = path.read_text().split("\n\n")[0]
    assert all(line.startswith("--") for line in head.splitlines())
    for word in ("KEYS", "ARGV", "Result"):
        assert f"-- {word}  " in head
    assert "-- Idempotent: " in head or "-- Changes nothing." in head


def test_files_fit_on_a_few_screens() -> None:
    scripts = sorted((ROOT / "frontend" / "js").glob("*.js"))
    long = {path.name: n for path in [*PRODUCT, *scripts] if (n := len(path.read_text().splitlines())) > 320}
    assert long == {}
