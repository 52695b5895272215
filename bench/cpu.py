"""The processes' own clocks, and which core they run on (Linux)."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

RELAY_CORE, LOAD_CORE = 0, 1
"""One core for what is measured, another for the model's stand-in and the viewers."""

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_STORES = ("redis-server", "valkey-server")


def spent_s(root: int) -> tuple[float, float]:
    """CPU seconds that a process and all below it have used, without their Redis and of it."""
    return _summed(root, lambda pid: _process_clock_s(pid) + _buried_s(pid))


def waited_s(pid: int) -> float:
    """How long a process of one thread was ready to run, but its core was not free."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9


def memory_bytes(root: int) -> tuple[float, float]:
    """Memory that a process and all below it would give back (USS), without their Redis and of it."""
    return _summed(root, lambda pid: float(psutil.Process(pid).memory_full_info().uss))


def _summed(root: int, measure: Callable[[int], float]) -> tuple[float, float]:
    while True:
        ours = store = 0.0
        try:
            for pid in _family(root):
                if Path(f"/proc/{pid}/comm").read_text().strip() in _STORES:
                    store += measure(pid)
                else:
                    ours += measure(pid)
        except (psutil.NoSuchProcess, OSError):
            if not psutil.pid_exists(root):
                raise
            continue  # a child, such as a Redis that rewrote its file, has ended meanwhile: anew
        return ours, store


def _family(root: int) -> Iterator[int]:
    """A process and all below it, without a look at all others: the viewers wait meanwhile."""
    yield root
    for children in Path(f"/proc/{root}/task").glob("*/children"):
        for child in children.read_text().split():
            yield from _family(int(child))


def _process_clock_s(pid: int) -> float:
    """A process's CPU time to the nanosecond: its clock is `clock_getcpuclockid(3)`, all threads counted."""
    return time.clock_gettime((~pid << 3) | 2)


def _buried_s(pid: int) -> float:
    """CPU time of children that have ended, such as a Redis that rewrote its file (`proc(5)`: cutime)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / _TICKS_A_SECOND
