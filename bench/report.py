"""Format figures as Markdown tables, and describe the machine."""

import datetime
import math
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

_MAX_REASON_LENGTH = 120
_WIDTH = 100


@dataclass
class Goal:
    """An upper bound of a figure, or with `at_least` a lower one."""

    figure: str
    value: float
    bound: float
    at_least: bool = False

    def __str__(self) -> str:
        is_met = self.value >= self.bound if self.at_least else self.value <= self.bound
        verdict = "met" if is_met else f"missed by {abs(self.value / self.bound - 1):.0%}"
        order = "at least" if self.at_least else "at most"
        return f"- {verdict}: {self.figure}: {self.value:.2f} (goal: {order} {self.bound:g})"


@dataclass
class Table:
    """The figures of one scenario."""

    title: str
    columns: list[str]
    rows: list[list[str]] = field(default_factory=list)
    note: str = ""
    goals: list[Goal] = field(default_factory=list)

    def add_missing_row(self, name: str, reason: str) -> None:
        """Append the row of a proxy that does not run."""
        rest = ["–"] * (len(self.columns) - 2)
        self.rows.append([name, f"missing: {reason[:_MAX_REASON_LENGTH]}", *rest])

    def to_markdown(self) -> str:
        """Return the table with aligned columns, and its note below."""
        lines = [self.columns, *self.rows]
        widths = [max(len(row[i]) for row in lines) for i in range(len(self.columns))]
        header, *rows = (_align(row, widths) for row in lines)
        rule = "|".join("-" * (w + 1) + (":" if i else "-") for i, w in enumerate(widths))
        note = f"\n{textwrap.fill(self.note, _WIDTH)}\n" if self.note else ""
        return f"## {self.title}\n\n" + "\n".join([header, f"|{rule}|", *rows]) + "\n" + note


def _align(row: list[str], widths: list[int]) -> str:
    first, *others = zip(row, widths, strict=True)
    cells = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
    return f"| {' | '.join(cells)} |"


def find_percentile(ordered: Sequence[float], share: float) -> float:
    """Return the percentile of a sorted list by nearest rank; `share` is 0.99 for the 99th."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def format_spread(values: Sequence[float], digits: int = 2) -> str:
    """Format the median with the minimum and maximum."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def describe_machine() -> str:
    """Describe the machine, its load, the measured commit and the versions of the software."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    rows = [
        ("measured", f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC"),
        ("commit", describe_commit(Path(__file__).parent)),
        ("CPU", f"{cpu[1] if cpu else platform.processor()}, {os.cpu_count()} cores"),
        ("memory", f"{memory:.0f} GiB"),
        ("kernel", f"Linux {platform.release()}"),
        ("Python", ", ".join(_list_packages())),
        ("programs", ", ".join(_list_programs())),
        ("load average at the start", f"{os.getloadavg()[0]:.2f}"),
    ]
    return "\n".join(["| run | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows)])


def describe_commit(root: Path) -> str:
    """Return the commit of a checkout, with `-dirty` if files were changed."""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "none"


def _list_packages() -> Iterator[str]:
    yield f"{platform.python_version()}"
    for package in ("sanic", "openai", "aiohttp", "redis", "uvloop"):
        yield f"{package} {version(package)}"


def _list_programs() -> Iterator[str]:
    path = f"{os.environ['PATH']}:{Path(sys.executable).parent}:/usr/sbin"
    for name, option in (("node", "--version"), ("nginx", "-v"), ("redis-server", "--version")):
        if program := shutil.which(name, path=path):
            done = subprocess.run([program, option], capture_output=True, text=True, check=True)
            found = re.search(r"v?(\d+\.\d+\.\d+)", done.stdout + done.stderr)
            yield f"{name} {found[1] if found else '?'}"
