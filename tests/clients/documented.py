"""The programs in docs/clients.md, which tests run as they are printed there."""

import re

from tests.processes import ROOT
from tests.proxies.doors import API_KEY

PAGE = (ROOT / "docs" / "clients.md").read_text()
QUESTION = "Why is the sky blue?"
URL = "http://127.0.0.1:8000"


def read_program(heading: str, url: str, question: str) -> tuple[str, str]:
    """Return the language and the text of a program, with another URL, key and question."""
    section = re.split(rf"^### {re.escape(heading)}$", PAGE, flags=re.MULTILINE)[1]
    section = re.split(r"^##+ ", section, flags=re.MULTILINE)[0]
    ((language, program),) = re.findall(r"^```(\w+)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert URL in program
    program = re.sub(r"\bnone\b", API_KEY, program)
    return str(language), program.replace(QUESTION, question).replace(URL, url)


def read_tutorials() -> dict[str, tuple[str, str]]:
    """Return the address in the page of each tutorial, and the one that replaces it."""
    rows = re.findall(r"^\| \[(\w+)\]\(\S+\) \| `(\S+)` \| `(\S+)` \|", PAGE, re.MULTILINE)
    return {name: (address, replacement) for name, address, replacement in rows}
