"""Measure Holdline next to its peers, or next to another checkout.

    python -m bench.run --scenario streams-100 --rounds 5 --peers node,tutorial
    python -m bench.run --scenario streams-100 --rounds 5 --baseline ../other-checkout

All proxies run for the whole time. Each round loads every proxy once, one after another, so that
other work on the machine affects all of them alike. Ratios are taken within a round.
"""

import argparse
import contextlib
import os
import resource
import signal
import sys
from collections.abc import Callable, Container
from pathlib import Path

from bench import report, scenarios
from bench.baseline import COMPARISONS
from bench.capacity import run_capacity
from bench.conversations import run_long_conversations
from bench.cpu import LOAD_CORE
from bench.harness import Harness
from bench.proxies import ALL, START
from bench.report import Table

_FAST_PIPES = ["holdline", "nginx", "node"]
SCENARIOS: dict[str, Callable[[Harness], Table]] = {
    "streams-20": lambda harness: scenarios.run_paced(harness, 20, ALL, {}),
    "streams-100": lambda harness: scenarios.run_paced(
        harness, 100, ALL, {"node": 1.0, "tutorial": 0.25}
    ),
    "streams-700": lambda harness: scenarios.run_paced(harness, 700, _FAST_PIPES, {"node": 0.8}),
    "v1": lambda harness: scenarios.run_paced(
        harness, 20, ["holdline", "holdline-v1", "litellm"], {}
    ),
    "bursts": scenarios.run_bursts,
    "first-token": lambda harness: scenarios.run_first_token(harness, 0),
    "first-token-loaded": lambda harness: scenarios.run_first_token(harness, 50),
    "capacity": run_capacity,
    "memory": scenarios.run_memory,
    "start": scenarios.run_start,
    "resume": scenarios.run_resume,
    "conversations": run_long_conversations,
    "workers": scenarios.run_workers,
}
"""Every scenario by its name."""


def main() -> int:
    """Run the selected scenarios; returns the exit status."""
    options = parse_arguments()
    os.sched_setaffinity(0, {LOAD_CORE})  # inherited by all processes but the proxies
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    _, max_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max_files, max_files))
    machine = report.describe_machine()
    tables: list[Table] = []
    available = COMPARISONS if options.baseline else SCENARIOS
    with contextlib.ExitStack() as stack:
        harness = Harness(stack, options.peers, options.rounds, options.baseline)
        for name in options.scenario or available:
            tables.append(available[name](harness))
            print(tables[-1].to_markdown(), *tables[-1].goals, sep="\n", flush=True)
            if options.output:  # after each scenario: a later failure loses no figures
                write_results(options.output, machine, tables)
    return 0


def write_results(path: Path, machine: str, tables: list[Table]) -> None:
    """Write the tables measured so far, after the goals they show as met or missed."""
    goals = [str(goal) for table in tables for goal in table.goals]
    parts = ["# Results", machine]
    parts += ["## Goals", "\n".join(goals)] if goals else []
    body = "\n".join(table.to_markdown() for table in tables)
    path.write_text("\n\n".join([*parts, body]))


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--scenario",
        type=make_names_parser(SCENARIOS),
        default=[],
        help=f"default: all of {', '.join(SCENARIOS)}",
    )
    parser.add_argument(
        "--peers",
        type=make_names_parser(START),
        default=list(START),
        help=f"default: {', '.join(START)}",
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="number of measured rounds, after one warm-up"
    )
    parser.add_argument(
        "--baseline", type=parse_checkout, help="compare with the Holdline of another checkout"
    )
    parser.add_argument("--output", type=Path, help="also write the tables to this file")
    options = parser.parse_args()
    if options.baseline and (unknown := set(options.scenario) - set(COMPARISONS)):
        parser.error(
            f"{', '.join(sorted(unknown))} cannot be compared with a baseline; "
            f"choose from {', '.join(COMPARISONS)}"
        )
    return options


def parse_checkout(text: str) -> Path:
    """Return the absolute path of a checkout of Holdline; raises ArgumentTypeError."""
    root = Path(text).resolve()
    if not (root / "server.py").exists():
        raise argparse.ArgumentTypeError(f"{root} contains no server.py")
    return root


def make_names_parser(known: Container[str]) -> Callable[[str], list[str]]:
    """Return a parser of comma-separated names that rejects unknown ones."""

    def parse(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"unknown name {name!r}")
        return names

    return parse


if __name__ == "__main__":
    sys.exit(main())
