"""Read the CPU time and memory of a process and its descendants (Linux)."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

PROXY_CORE, LOAD_CORE = 0, 1
"""One core for the measured proxy and its Redis, the other for the fake upstream and the load."""

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_REDIS_COMMANDS = ("redis-server", "valkey-server")


class Totals(NamedTuple):
    """A figure summed over a process tree, with its Redis processes apart."""

    proxy: float
    redis: float


def read_cpu_s(root: int) -> Totals:
    """Return the CPU seconds that a process tree has used."""
    return _sum_over_tree(root, lambda pid: _read_cpu_clock_s(pid) + _read_reaped_cpu_s(pid))


def read_memory_bytes(root: int) -> Totals:
    """Return the memory that would be freed if the process tree exited (USS)."""
    return _sum_over_tree(root, lambda pid: float(psutil.Process(pid).memory_full_info().uss))


def read_runnable_s(pid: int) -> float:
    """Return how long a single-threaded process has been runnable while its core was busy."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9


def _sum_over_tree(root: int, measure: Callable[[int], float]) -> Totals:
    while True:
        proxy = redis = 0.0
        try:
            for pid in _walk_tree(root):
                if Path(f"/proc/{pid}/comm").read_text().strip() in _REDIS_COMMANDS:
                    redis += measure(pid)
                else:
                    proxy += measure(pid)
        except (psutil.NoSuchProcess, OSError):
            if not psutil.pid_exists(root):
                raise
            continue  # a child exited in between, such as a Redis that rewrote its file: retry
        return Totals(proxy, redis)


def _walk_tree(root: int) -> Iterator[int]:
    """Yield a process and its descendants, without a scan of /proc: the load waits meanwhile."""
    yield root
    for children in Path(f"/proc/{root}/task").glob("*/children"):
        for child in children.read_text().split():
            yield from _walk_tree(int(child))


def _read_cpu_clock_s(pid: int) -> float:
    """Return the CPU time of all threads, to the nanosecond (`clock_getcpuclockid(3)`)."""
    return time.clock_gettime((~pid << 3) | 2)


def _read_reaped_cpu_s(pid: int) -> float:
    """Return the CPU time of exited children, as of a Redis that rewrote its file (cutime)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / _TICKS_PER_SECOND
