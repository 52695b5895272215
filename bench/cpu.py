"""The processes' own clocks, and which core they run on (Linux)."""

import time
from pathlib import Path

import psutil

RELAY_CORE, LOAD_CORE = 0, 1
"""One core for what is measured, another for the model's stand-in and the viewers."""

_STORES = ("redis-server", "valkey-server")


def processes(root: int) -> list[psutil.Process]:
    """A process and all below it."""
    top = psutil.Process(root)
    return [top, *top.children(recursive=True)]


def is_store(process: psutil.Process) -> bool:
    """Whether this is a Redis."""
    return any(name in process.name() for name in _STORES)


def spent_s(root: int) -> tuple[float, float]:
    """CPU seconds that a process and all below it have used, without their Redis and of it."""
    ours = store = 0.0
    for process in processes(root):
        used = _process_clock_s(process.pid) + _buried_s(process)
        if is_store(process):
            store += used
        else:
            ours += used
    return ours, store


def waited_s(pid: int) -> float:
    """How long a process of one thread was ready to run, but its core was not free."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9


def memory_bytes(root: int) -> tuple[int, int]:
    """Memory that a process and all below it would give back (USS), without their Redis and of it."""
    ours = store = 0
    for process in processes(root):
        used = process.memory_full_info().uss
        if is_store(process):
            store += used
        else:
            ours += used
    return ours, store


def _process_clock_s(pid: int) -> float:
    """A process's CPU time to the nanosecond: its clock is `clock_getcpuclockid(3)`, all threads counted."""
    return time.clock_gettime((~pid << 3) | 2)


def _buried_s(process: psutil.Process) -> float:
    """CPU time of children that have ended, such as a Redis that rewrote its file."""
    times = process.cpu_times()
    return times.children_user + times.children_system
