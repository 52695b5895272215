"""Run the faults of a seed, and print the violated invariants; exit with 1 if there are any."""

import argparse
import asyncio
import random
import signal
import sys
import time

from tests.chaos.plan import Arrangement
from tests.chaos.run import run

_MAX_MINUTES = 120


def main() -> int:
    """Run each arrangement once with the seed."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="default: a new one, which is printed")
    parser.add_argument("--minutes", type=float, default=1, help="length of the faults; default: 1")
    parser.add_argument(
        "--arrangement", choices=[*Arrangement], help="default: each of them in turn"
    )
    options = parser.parse_args()
    if not 0 < options.minutes <= _MAX_MINUTES:
        parser.error(f"--minutes must be more than 0, and at most {_MAX_MINUTES}")
    seed = random.randrange(1_000_000) if options.seed is None else options.seed
    chosen = [Arrangement(options.arrangement)] if options.arrangement else list(Arrangement)
    failed = False
    for arrangement in chosen:
        print(
            f"seed {seed}, arrangement {arrangement}: python -m tests.chaos --seed {seed} "
            f"--minutes {options.minutes:g} --arrangement {arrangement}"
        )
        begun = time.monotonic()
        report = asyncio.run(run(seed, options.minutes * 60, arrangement, say))
        for violation in report.violations:
            print(f"VIOLATED: {violation}")
        verdict = f"{len(report.violations)} violations" if report.violations else "all held"
        print(f"{verdict} ({report}; {time.monotonic() - begun:.0f} s in all)")
        failed = failed or bool(report.violations)
    return int(failed)


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the servers that it started
    sys.exit(main())
