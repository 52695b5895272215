"""The processes' own clocks, and which core they run on (Linux)."""

import time
from collections.abc import Callable
from pathlib import Path

import psutil

RELAY_CORE, LOAD_CORE = 0, 1
"""One core for what is measured, another for the model's stand-in and the viewers."""

_STORES = ("redis-server", "valkey-server")


def spent_s(root: int) -> tuple[float, float]:
    """CPU seconds that a process and all below it have used, without their Redis and of it."""
    return _summed(root, lambda process: _process_clock_s(process.pid) + _buried_s(process))


def waited_s(pid: int) -> float:
    """How long a process of one thread was ready to run, but its core was not free."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9


def memory_bytes(root: int) -> tuple[float, float]:
    """Memory that a process and all below it would give back (USS), without their Redis and of it."""
    return _summed(root, lambda process: float(process.memory_full_info().uss))


def _summed(root: int, measure: Callable[[psutil.Process], float]) -> tuple[float, float]:
    top = psutil.Process(root)
    while True:
        ours = store = 0.0
        try:
            for process in [top, *top.children(recursive=True)]:
                if any(name in process.name() for name in _STORES):
                    store += measure(process)
                else:
                    ours += measure(process)
        except (psutil.NoSuchProcess, OSError):
            if not top.is_running():
                raise
            continue  # a child, such as a Redis that rewrote its file, has ended meanwhile: anew
        return ours, store


def _process_clock_s(pid: int) -> float:
    """A process's CPU time to the nanosecond: its clock is `clock_getcpuclockid(3)`, all threads counted."""
    return time.clock_gettime((~pid << 3) | 2)


def _buried_s(process: psutil.Process) -> float:
    """CPU time of children that have ended, such as a Redis that rewrote its file."""
    times = process.cpu_times()
    return times.children_user + times.children_system
