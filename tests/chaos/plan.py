"""Plan the faults of a run from a seed: the same seed gives the same plan. Pure."""

import random
from dataclasses import dataclass
from enum import StrEnum


class Arrangement(StrEnum):
    """The processes under test."""

    ONE = "one"
    """One server with its embedded Redis."""
    TWO = "two"
    """Two servers on one Redis."""
    CLUSTER = "cluster"
    """Two servers on a Redis Cluster of three masters."""


SERVERS = {Arrangement.ONE: 1, Arrangement.TWO: 2, Arrangement.CLUSTER: 2}
NODES = {Arrangement.ONE: 1, Arrangement.TWO: 1, Arrangement.CLUSTER: 3}
"""The number of Redis processes."""

WORKERS = 2
"""Workers of each server."""


class Kind(StrEnum):
    """A fault of a process; a freeze is SIGSTOP, and SIGCONT at its end."""

    KILL_WORKER = "kill worker"
    FREEZE_WORKER = "freeze worker"
    STOP_WORKER = "stop worker"
    KILL_REDIS = "kill Redis"
    FREEZE_REDIS = "freeze Redis"
    STOP_REDIS = "stop Redis"
    KILL_SERVER = "kill server"
    FREEZE_SERVER = "freeze server"
    STOP_SERVER = "stop server"


_WEIGHTS = {
    Kind.KILL_WORKER: 4,
    Kind.FREEZE_WORKER: 3,
    Kind.STOP_WORKER: 2,
    Kind.KILL_REDIS: 3,
    Kind.FREEZE_REDIS: 3,
    Kind.STOP_REDIS: 1,
    Kind.KILL_SERVER: 2,
    Kind.FREEZE_SERVER: 1,
    Kind.STOP_SERVER: 2,
}
_REDIS_KINDS = (Kind.KILL_REDIS, Kind.FREEZE_REDIS, Kind.STOP_REDIS)
_WORKER_KINDS = (Kind.KILL_WORKER, Kind.FREEZE_WORKER, Kind.STOP_WORKER)

_PAUSE_S = (0.3, 2.5)
_SHORT_S = (0.2, 3.0)
_LONG_S = (8.0, 15.0)
"""Longer than a command to Redis is retried."""

_LONG_SHARE = 0.1
_LONG_RUN_S = 30
"""A run of at least this length has long faults too."""


@dataclass(frozen=True)
class Fault:
    """One fault: when it begins, what it does to which process, and when that process is back."""

    at_s: float
    kind: Kind
    target: int
    """The number of the server or of the Redis process."""
    worker: int
    """The number of the worker, for faults of workers."""
    lasts_s: float

    def __str__(self) -> str:
        place = f"{self.target}.{self.worker}" if self.kind in _WORKER_KINDS else f"{self.target}"
        return f"{self.at_s:7.2f} s  {self.kind} {place} for {self.lasts_s:.2f} s"

    @property
    def is_of_redis(self) -> bool:
        return self.kind in _REDIS_KINDS


def make_plan(seed: int, seconds: float, arrangement: Arrangement) -> list[Fault]:
    """Return the faults of a run of this length, in their order."""
    chance = random.Random(f"{seed} {arrangement}")
    kinds, weights = list(_WEIGHTS), list(_WEIGHTS.values())
    faults: list[Fault] = []
    at_s = 1.0  # users have begun by then
    while (at_s := at_s + chance.uniform(*_PAUSE_S)) < seconds:
        (kind,) = chance.choices(kinds, weights)
        targets = NODES if kind in _REDIS_KINDS else SERVERS
        is_long = chance.random() < _LONG_SHARE and seconds >= _LONG_RUN_S
        faults.append(
            Fault(
                at_s=at_s,
                kind=kind,
                target=chance.randrange(targets[arrangement]),
                worker=chance.randrange(WORKERS),
                lasts_s=chance.uniform(*(_LONG_S if is_long else _SHORT_S)),
            )
        )
    return faults
