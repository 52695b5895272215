"""What the documents say is so: settings, routes, tests, links, commands."""

import re
from pathlib import Path

import pytest

from config.settings import Settings
from server import create_app
from tests.processes import ROOT

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_the_readme_lists_every_setting_with_its_default(readme: str) -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| (?:`([^`]*)`)? ?\|", (ROOT / readme).read_text(), re.MULTILINE)
    defaults = {}
    for name, field in Settings.model_fields.items():
        empty = field.default is None or field.default in ("", ())
        defaults[name.upper()] = "" if empty else str(field.default)
    assert dict(rows) == defaults


def test_every_route_is_documented_and_every_documented_route_exists() -> None:
    app = create_app(Settings(), "redis://localhost")
    served = set()
    for route in app.router.routes:
        path = "/" + re.sub(r"<(\w+):\w+>", r"{\1}", route.path)
        served |= {(method, path.rstrip("/")) for method in route.methods or ()}
    text = (ROOT / "docs" / "behaviour.md").read_text()
    named = re.findall(r"`(GET|POST|PATCH|DELETE)\s+(/[^`\s]*)`", text)
    documented = {(method, path.rstrip("/")) for method, path in named}
    served = {(method, path) for method, path in served if method not in ("HEAD", "OPTIONS")}
    static = {("GET", path) for _, path in served if re.match(r"/(js|vendor|style|favicon)", path)}
    assert documented == served - static


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_a_document_names_is_there(document: Path) -> None:
    text = document.read_text()
    for link in re.findall(r"\]\((?!https?://)([^)#]+)", text):
        assert (document.parent / link).exists(), f"{document.name} links to {link}"
    for file, test in re.findall(r"`(?:tests/)?((?:browser/)?test_\w+\.py)::(\w+)`", text):
        assert f"def {test}(" in (ROOT / "tests" / file).read_text(), f"{document.name} names {test}"
    for path in re.findall(r"`((?:chat|config|sessions|tests|frontend|docs)/[\w/.-]+)`", text):
        assert (ROOT / path).exists(), f"{document.name} names {path}"
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for target in re.findall(r"\bmake ([a-z]+)\b(?=`|\s+#|$)", text, re.MULTILINE):
        assert target in targets, f"{document.name} says make {target}"


def test_the_readmes_show_the_same_commands() -> None:
    def blocks(name: str) -> list[str]:
        found = re.findall(r"^```\w+\n(.*?)^```", (ROOT / name).read_text(), re.MULTILINE | re.DOTALL)
        return [re.sub(r"[ ]*#.*", "", block) for block in found]

    assert blocks("README.md") == blocks("README.zh-CN.md")
