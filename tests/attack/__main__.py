"""Run all vectors and print a table; exit with 1 if a defence did not hold."""

import argparse
import asyncio
import ipaddress
import signal
import socket
import sys
from urllib.parse import urlsplit

from tests.attack.target import Outcome, Target, own_target
from tests.attack.vectors import VECTORS, Vector

_LIMIT_S = 150
"""Maximum time for one vector."""


def main() -> int:
    """Attack a server per vector, or the one at `--url`."""
    parser = argparse.ArgumentParser(prog="python -m tests.attack", description=__doc__)
    parser.add_argument("--url", type=parse_url, help="a running server on loopback")
    parser.add_argument("--only", default="", help="run the vectors whose name contains this text")
    options = parser.parse_args()
    chosen = [
        one
        for one in VECTORS
        if options.only.lower() in one.name.lower() and (one.anywhere or not options.url)
    ]
    return asyncio.run(attack_all(chosen, options.url))


def parse_url(text: str) -> str:
    """Return an origin whose host is a loopback address; raises ValueError for any other."""
    parts = urlsplit(text)
    if parts.scheme != "http" or not parts.hostname:
        raise argparse.ArgumentTypeError("expected http://127.0.0.1:<port>")
    found = {info[4][0] for info in socket.getaddrinfo(parts.hostname, parts.port or 80)}
    if not all(ipaddress.ip_address(address).is_loopback for address in found):
        raise argparse.ArgumentTypeError("attacks only addresses of loopback")
    return f"http://{parts.netloc}"


async def attack_all(vectors: list[Vector], url: str | None) -> int:
    """Run vectors one after the other, print a line for each, and return the exit status."""
    print(f"| {'vector':<40} | {'held':<8} | what happened |\n| {'-' * 40} | -------- | --- |")
    failed = 0
    for vector in vectors:
        outcome = await attack(vector, url)
        failed += not outcome.held
        verdict = "held" if outcome.held else "NOT held"
        print(f"| {vector.name:<40} | {verdict:<8} | {outcome.happened} |", flush=True)
    print(f"\n{len(vectors) - failed} of {len(vectors)} held")
    return int(failed > 0)


async def attack(vector: Vector, url: str | None = None) -> Outcome:
    """Run one vector within its time limit; an error of the attack itself is a failure too."""
    try:
        async with asyncio.timeout(_LIMIT_S):
            if url:
                return await vector.attack(Target(url))
            async with own_target(*vector.wrapper, **vector.settings) as target:
                return await vector.attack(target)
    except TimeoutError:
        return Outcome(False, f"no result after {_LIMIT_S} s")
    except Exception as error:
        words = " ".join(str(error).split())[:200]
        return Outcome(
            False, f"the attack could not be carried out: {type(error).__name__} {words}"
        )


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the servers that it started
    sys.exit(main())
