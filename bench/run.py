"""Measures Holdline side by side with its peers: `make bench`, or one scenario of it.

    python -m bench.run --scenario streams-100 --rounds 5 --peers node,tutorial
    python -m bench.run --scenario streams-100 --rounds 5 --baseline ../other-checkout

Every relay is up for the whole run, and in each round each is loaded once, one after the other: what the
machine does besides falls on all alike, and ratios are taken within a round.
"""

import argparse
import contextlib
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from bench import report, scenarios
from bench.baseline import COMPARISONS
from bench.bed import Bed
from bench.cpu import LOAD_CORE
from bench.report import Table
from bench.scenarios import EVERY

RESULTS = Path(__file__).parent / "RESULTS.md"

SCENARIOS: dict[str, Callable[[Bed], Table]] = {
    "streams-20": lambda bed: scenarios.paced(bed, 20, EVERY, {}),
    "streams-100": lambda bed: scenarios.paced(bed, 100, EVERY, {"node": 1.0, "tutorial": 0.25}),
    "streams-700": lambda bed: scenarios.paced(
        bed, 700, ["holdline", "nginx", "node"], {"node": 0.8}
    ),
    "bursts": scenarios.bursts,
    "first-token": lambda bed: scenarios.first_token(bed, 0),
    "first-token-loaded": lambda bed: scenarios.first_token(bed, 50),
    "capacity": scenarios.capacity,
    "memory": scenarios.memory,
    "start": scenarios.start,
    "resume": scenarios.resume,
    "conversations": scenarios.long_conversations,
    "workers": scenarios.workers,
}
"""Every scenario by its name."""


def main() -> int:
    """Run what was asked for; returns the exit status."""
    asked = arguments()
    os.sched_setaffinity(0, {LOAD_CORE})  # with all that it starts, but for the relays
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    head = report.machine()
    tables: list[Table] = []
    run_scenario = COMPARISONS if asked.baseline else SCENARIOS
    with contextlib.ExitStack() as stack:
        bed = Bed(stack, asked.peers, asked.rounds, asked.baseline)
        for name in asked.scenario or run_scenario:
            tables.append(run_scenario[name](bed))
            print(tables[-1].markdown(), *tables[-1].goals, sep="\n", flush=True)
            if asked.output:  # after each, so that what breaks later costs nothing
                write(asked.output, head, tables)
    return 0


def write(path: Path, head: str, tables: list[Table]) -> None:
    """Write what is known so far."""
    goals = "\n".join(str(goal) for table in tables for goal in table.goals)
    body = "\n".join(table.markdown() for table in tables)
    path.write_text(f"# Results\n\n{head}\n\n## Goals\n\n{goals}\n\n{body}")


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ", ".join(SCENARIOS)
    parser.add_argument(
        "--scenario", type=listed(SCENARIOS), default=[], help=f"of {names}; without it, all"
    )
    parser.add_argument("--peers", type=listed(EVERY), default=EVERY, help=f"of {', '.join(EVERY)}")
    parser.add_argument(
        "--rounds", type=int, default=5, help="measured rounds, after one that warms up"
    )
    parser.add_argument(
        "--baseline", type=checkout, help="another checkout of Holdline: compare this one with it"
    )
    parser.add_argument(
        "--output", type=Path, help="a file for the tables, such as bench/RESULTS.md"
    )
    asked = parser.parse_args()
    for name in asked.scenario if asked.baseline else ():
        if name not in COMPARISONS:
            parser.error(f"{name} cannot be compared with a baseline: {', '.join(COMPARISONS)}")
    return asked


def checkout(text: str) -> Path:
    """Return the directory if it holds a checkout of Holdline."""
    root = Path(text).resolve()
    if not (root / "server.py").exists():
        raise argparse.ArgumentTypeError(f"{root} holds no server.py")
    return root


def listed(known: object) -> Callable[[str], list[str]]:
    """Reads names that are set apart by commas."""

    def read(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in known:  # type: ignore[operator]
                raise argparse.ArgumentTypeError(f"there is no {name}")
        return names

    return read


if __name__ == "__main__":
    sys.exit(main())
