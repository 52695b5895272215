"""Makes tables of what was measured, and says on which machine."""

import datetime
import math
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path


@dataclass
class Goal:
    """What a figure is to be: at most, or at least, a bound."""

    words: str
    found: float
    bound: float
    at_least: bool = False

    def __str__(self) -> str:
        holds = self.found >= self.bound if self.at_least else self.found <= self.bound
        how = "holds" if holds else f"missed by {abs(self.found / self.bound - 1):.0%}"
        order = "at least" if self.at_least else "at most"
        return f"- {how}: {self.words}: {self.found:.2f}, to be {order} {self.bound:g}"


@dataclass
class Table:
    """What one scenario found."""

    title: str
    columns: list[str]
    rows: list[list[str]] = field(default_factory=list)
    note: str = ""
    goals: list[Goal] = field(default_factory=list)

    def markdown(self) -> str:
        """The table, its columns aligned, with its note below."""
        lines = [self.columns, *self.rows]
        widths = [max(len(row[i]) for row in lines) for i in range(len(self.columns))]
        aligned = [
            "| "
            + " | ".join(
                cell.rjust(width) if i else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            + " |"
            for row in lines
        ]
        rule = (
            "|"
            + "|".join("-" * (w + 1) + ("-" if i == 0 else ":") for i, w in enumerate(widths))
            + "|"
        )
        note = f"\n{self.note}\n" if self.note else ""
        return f"## {self.title}\n\n" + "\n".join([aligned[0], rule, *aligned[1:]]) + "\n" + note


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which this share of a sorted list lies (nearest rank)."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def spread(values: Sequence[float], digits: int = 2) -> str:
    """A median with its smallest and largest."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def missing(columns: list[str], name: str, why: str) -> list[str]:
    """The row of a peer that is not on this machine."""
    return [name, f"missing: {why[:120]}", *["–"] * (len(columns) - 2)]


def machine() -> str:
    """The machine and what ran on it, and how busy it was before."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = [f"Python {platform.python_version()}"]
    versions += [
        f"{package} {version(package)}"
        for package in ("sanic", "openai", "aiohttp", "redis", "uvloop")
    ]
    for command in (["node", "--version"], ["nginx", "-v"], ["redis-server", "--version"]):
        program = shutil.which(
            command[0], path=f"{os.environ['PATH']}:{Path(sys.executable).parent}:/usr/sbin"
        )
        if program:
            done = subprocess.run([program, command[1]], capture_output=True, text=True, check=True)
            found = re.search(r"v?(\d+\.\d+\.\d+)", done.stdout + done.stderr)
            versions.append(f"{command[0]} {found[1] if found else '?'}")
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return (
        f"Taken {datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC at {commit or 'no commit'}: "
        f"{cpu[1] if cpu else platform.processor()}, {os.cpu_count()} cores, {memory:.0f} GiB, "
        f"Linux {platform.release()}; {', '.join(versions)}. "
        f"Load average before it began: {os.getloadavg()[0]:.2f}."
    )
