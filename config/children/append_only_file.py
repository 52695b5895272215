"""Rewrite the append-only file of the embedded Redis, so that deleted text leaves the disk.

The file is a log of writes. Deleted and expired data stays in it until Redis writes the remaining
data to a new file. By itself, Redis does so only when the file has grown to twice its size and to
64 MiB.
"""

import logging
import math
import re
import time
from pathlib import Path

from config.children.redis_command import send_command

logger = logging.getLogger("holdline.append_only_file")

CHECK_INTERVAL_S = 5.0
MIN_INTERVAL_S = 10.0
"""Minimum time between the beginnings of two rewrites."""

MAX_BYTES_PER_S = 256 << 10
"""Rate at which rewrites write to the disk on average: 50 MB every 200 s, at most 22 GB a day."""

RETRY_INTERVAL_S = 60.0
"""Minimum time between a rewrite that failed, for example on a full disk, and the next one."""

WARNING_INTERVAL_S = 60.0

REPLY_TIMEOUT_S = 0.5
"""Time for a reply of Redis, for which the supervisor waits."""

STOP_TIMEOUT_S = 5.0
"""Time for a rewrite before Redis stops. If it is too short, the next start rewrites the file."""

_DATA_NAMES = ("appendonlydir", "appendonly.aof")
"""Of Redis 7 and later, and of Redis 6.2."""

_POLL_INTERVAL_S = 0.01
_REMOVALS = re.compile(rb"(?:expired_keys:|cmdstat_(?:del|unlink):calls=)([0-9]+)")


class AppendOnlyFile:
    """The append-only file of one run of Redis.

    Nothing is known about removals before this run. Therefore each run begins with a rewrite.
    """

    def __init__(self, home: Path, socket: Path) -> None:
        """Take over the file of the Redis that has its data in `home`, and listens on `socket`."""
        self._home = home
        self._socket = socket
        self._check_at = self._began_at = self._warned_at = -math.inf
        self._rewritten: int | None = None
        """Number of removals in this run of which nothing is left in the file; None if unknown."""
        self._running: int | None = None
        """The same, once the rewrite that runs is complete; None if none runs."""

    def remove_temporary_files(self) -> None:
        """Remove what earlier rewrites left that did not end: it may contain deleted text.

        Redis must not run.
        """
        for path in self._home.glob("temp-*"):
            path.unlink()

    def rewrite_if_due(self) -> None:
        """Begin a rewrite, if keys were removed since the last one and its interval is over."""
        now = time.monotonic()
        if now < self._check_at:
            return
        self._check_at = now + CHECK_INTERVAL_S
        if now >= self._warned_at + WARNING_INTERVAL_S and (
            warning := self._describe_removed_files()
        ):
            self._warned_at = now
            logger.error("%s", warning)
        info = self._read_info()
        if (
            info
            and not _is_running(info)
            and _count_removals(info) != self._rewritten
            and now >= self._began_at + _choose_interval(info)
        ):
            self._began_at = now
            self._begin(info)

    def rewrite_before_stop(self) -> None:
        """Rewrite the file now, if keys were removed; return after at most STOP_TIMEOUT_S."""
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while time.monotonic() < deadline and (info := self._read_info()):
            is_clean = _count_removals(info) == (self._rewritten or 0)
            if not _is_running(info) and (is_clean or _has_failed(info) or not self._begin(info)):
                return
            time.sleep(_POLL_INTERVAL_S)

    def _describe_removed_files(self) -> str:
        """Return the warning of files that are removed or out of reach, "" if there is none.

        Redis itself does not notice it.
        """
        try:
            has_data = any((self._home / name).exists() for name in _DATA_NAMES)
            has_socket = self._socket.exists()
        except OSError as error:  # rights that were changed, a failing disk, a lost mount
            return (
                f"{self._home} cannot be accessed ({error.strerror}): Redis may accept no new "
                "connections, and may not be able to write. Correct that before the server stops"
            )
        if not has_data:
            return (
                f"the data in {self._home} was removed while the server was running: all "
                "conversations will be lost when it stops. Take a snapshot now, if redis.sock is "
                "left (docs/operations.md, Backups)"
            )
        if not has_socket:
            return (
                f"{self._socket} was removed while the server was running: Redis accepts no new "
                "connections. Restart the server"
            )
        return ""

    def _read_info(self) -> bytes:
        """Return the state of Redis, b"" if it does not report it; note the end of a rewrite."""
        info = send_command(self._socket, b"INFO everything", REPLY_TIMEOUT_S)
        if info.startswith(b"-"):  # an error, such as that of maxclients
            return b""
        if info and self._running is not None and not _is_running(info):
            if _has_failed(info):
                logger.warning(
                    "the append-only file could not be rewritten, so that deleted text is still "
                    "on the disk; next try in %.0f s. redis.log has the reason",
                    RETRY_INTERVAL_S,
                )
            else:
                self._rewritten = self._running
            self._running = None
        return info

    def _begin(self, info: bytes) -> bool:
        """Begin a rewrite; return False if Redis does not."""
        reply = send_command(self._socket, b"BGREWRITEAOF", REPLY_TIMEOUT_S)
        if not reply.startswith(b"+"):
            logger.warning("the append-only file cannot be rewritten (%s)", reply.decode().strip())
            return False
        self._running = _count_removals(info)  # before the rewrite began: later ones need another
        return True


def _is_running(info: bytes) -> bool:
    return b"aof_rewrite_in_progress:1" in info or b"aof_rewrite_scheduled:1" in info


def _has_failed(info: bytes) -> bool:
    return b"aof_last_bgrewrite_status:ok" not in info


def _count_removals(info: bytes) -> int:
    return sum(map(int, _REMOVALS.findall(info)))


def _choose_interval(info: bytes) -> float:
    """Return the time from the beginning of the last rewrite to the next one, in seconds."""
    if _has_failed(info):
        return RETRY_INTERVAL_S
    size = re.search(rb"aof_base_size:([0-9]+)", info)
    return max(MIN_INTERVAL_S, int(size[1]) / MAX_BYTES_PER_S if size else 0)
