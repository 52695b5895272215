"""Run the embedded Redis: without REDIS_URL, the supervisor starts one as its child process.

It starts before the workers are forked and stops after the last of them has drained. Workers
connect to `url` as to any other Redis. Three mechanisms keep a DATA_DIR to one writer at a time:

- The supervisor holds a POSIX lock on `holdline.lock`. Forked workers do not inherit such a lock,
  so a worker that outlives its supervisor does not block the next server.
- Redis holds a `flock` on `redis/redis.lock`. It inherits the lock through exec and releases it
  when it exits, so holding this lock proves that no earlier Redis writes here. A pid file proves
  nothing: by now its number may belong to another process, or to another container.
- PR_SET_PDEATHSIG terminates Redis with its parent on Linux. On other systems the next start shuts
  the orphan down.
"""

import fcntl
import logging
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Self

from config.children.append_only_file import AppendOnlyFile
from config.children.append_only_folder import check_append_only_folder
from config.children.child_process import starting_child
from config.children.redis_binary import EmbeddedRedisError, find_binary
from config.children.redis_command import send_command
from config.children.redis_faults import find_cause
from config.system.environment import read_harmless_variables
from config.system.memory import choose_redis_maxmemory

__all__ = ["DataDirError", "EmbeddedRedis", "EmbeddedRedisError", "RedisStartError"]

logger = logging.getLogger("holdline.embedded_redis")

MAX_SOCKET_PATH_BYTES = 103 if sys.platform == "darwin" else 107  # without the final NUL
POLL_INTERVAL_S = 0.005
PROGRESS_INTERVAL_S = 3.0
REPLY_TIMEOUT_S = 3.0
READY_TIMEOUT_S = 30.0
"""Time without PONG or LOADING after which a start has failed; loading may take longer."""

ORPHAN_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 20.0
LOG_TAIL_LINES = 8


class DataDirError(EmbeddedRedisError):
    """DATA_DIR cannot be created or written, has too long a path, or is in use."""


class RedisStartError(EmbeddedRedisError):
    """Redis exited or did not reply at startup; the message has the cause, or its log's tail."""


class EmbeddedRedis:
    """A Redis on one DATA_DIR, for the lifetime of this process.

    Call `start` in the main thread: PR_SET_PDEATHSIG fires when the *thread* that started the child
    exits. Create one per process and DATA_DIR: a POSIX lock does not exclude its own process.
    """

    name = "embedded Redis"

    def __init__(self, data_dir: Path, maxmemory: str = "") -> None:
        """Prepare a Redis of at most `maxmemory`, such as 512mb; "" chooses it, 0 is no limit."""
        self._maxmemory = maxmemory or str(choose_redis_maxmemory())
        self._data_dir = data_dir.absolute()
        self._home = self._data_dir / "redis"
        self._socket = self._home / "redis.sock"
        self._log = self._home / "redis.log"
        self._log_start = 0  # offset in the log, in bytes, at which this run begins
        self._lock: IO[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._file: AppendOnlyFile | None = None
        """None until Redis is ready."""
        self.url = "unix" + self._socket.as_uri().removeprefix("file")
        self.version = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """The process id of Redis, None while it is stopped."""
        return self._process.pid if self._process else None

    def poll(self) -> int | None:
        """Return the exit status if Redis has died. To recover, call `stop`, `start`.

        Otherwise return None, and rewrite the append-only file if that is due.
        """
        status = self._process.poll() if self._process else None
        if self._file and status is None:
            self._file.rewrite_if_due()
        return status

    def start(self, must_return: Callable[[], bool] = lambda: False) -> None:
        """Start Redis and return when it is ready; on failure, raise an EmbeddedRedisError.

        A failure leaves no process running. Return at once, before Redis has loaded its data, when
        `must_return()` is true.
        """
        if self._process:
            raise RuntimeError("the embedded Redis is already running")
        try:
            self._make_directories()
            self._lock_data_dir()
            with (self._home / "redis.lock").open("a") as lock:
                self._wait_for_orphan(lock)
                check_append_only_folder(self._home)
                file = AppendOnlyFile(self._home, self._socket)
                file.remove_temporary_files()
                binary, self.version = find_binary(self._home)
                self._launch(binary, lock)
            self._wait_until_ready(must_return)
            self._file = file
        except BaseException as error:
            self.stop()
            if isinstance(error, OSError):
                raise DataDirError(f"DATA_DIR {self._data_dir} cannot be used: {error}") from error
            raise

    def stop(self) -> None:
        """Stop Redis, which writes its data first.

        Safe to repeat, and safe in a forked worker, since Redis is not the worker's child.
        """
        if self._process:
            if self._file and self._process.poll() is None:
                self._file.rewrite_before_stop()
            self._file = None
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                logger.warning(
                    "embedded Redis (pid %d) did not exit within %.0f s of SIGTERM; "
                    "killing it. Its log: %s",
                    self._process.pid,
                    STOP_TIMEOUT_S,
                    self._log,
                )
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._lock:
            with suppress(OSError):  # on a full disk, the text that was not written
                self._lock.close()
            self._lock = None

    def _make_directories(self) -> None:
        if (length := len(os.fsencode(self._socket))) > MAX_SOCKET_PATH_BYTES:
            raise DataDirError(
                f"DATA_DIR {self._data_dir} is too long: the path of its Unix socket takes "
                f"{length} bytes of at most {MAX_SOCKET_PATH_BYTES}. Set DATA_DIR to a shorter path"
            )
        for directory in (*reversed(self._home.parents), self._home):
            directory.mkdir(0o700, exist_ok=True)
        self._home.chmod(0o700)

    def _lock_data_dir(self) -> None:
        self._lock = (self._data_dir / "holdline.lock").open("a+")
        self._lock.seek(0)
        if not try_lock(fcntl.lockf, self._lock):
            pid = self._lock.read().strip() or "unknown"
            raise DataDirError(
                f"another Holdline (pid {pid}) is running on DATA_DIR {self._data_dir}"
            )
        self._lock.truncate()
        self._lock.write(f"{os.getpid()}\n")
        self._lock.flush()

    def _wait_for_orphan(self, lock: IO[str]) -> None:
        """Stop the Redis of an earlier run, if there is one, and take the lock that it holds."""
        deadline = time.monotonic() + ORPHAN_TIMEOUT_S
        stopped = self._stop_orphan()
        while not (stopped and try_lock(fcntl.flock, lock)):
            if not stopped or time.monotonic() > deadline:
                pid_file = self._home / "redis.pid"
                pid = pid_file.read_text().strip() if pid_file.exists() else "unknown"
                raise DataDirError(
                    f"the Redis of an earlier run (pid {pid}) did not shut down. "
                    f"Stop it, then start again. Its log: {self._log}"
                )
            time.sleep(POLL_INTERVAL_S)

    def _stop_orphan(self) -> bool:
        """Send SHUTDOWN to the Redis on our socket, if any; return False if it does not reply.

        Redis closes the connection when its data is written.
        """
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(ORPHAN_TIMEOUT_S)
            try:
                connection.connect(os.fspath(self._socket))
                connection.sendall(b"CONFIG GET dir\r\n")
                reply = connection.recv(65536)
                if reply and os.fsencode(self._home.resolve()) not in reply.split(b"\r\n"):
                    raise DataDirError(
                        f"a Redis with other data listens on {self._socket}: stop it first"
                    )
                logger.info("stopping the embedded Redis of an earlier run on %s", self._data_dir)
                connection.sendall(b"SHUTDOWN\r\n")
                return connection.recv(65536) == b""
            except TimeoutError:
                return False
            except (FileNotFoundError, ConnectionError):
                return True  # it has already exited

    def _launch(self, binary: Path, lock: IO[str]) -> None:
        options = {
            "dir": os.fspath(self._home),
            "port": "0",
            "unixsocket": os.fspath(self._socket),
            "unixsocketperm": "700",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "aof-load-truncated": "yes",  # a power failure may truncate the last command
            "save": "",
            # Before version 7, a snapshot for `redis-cli --rdb` would remain in `dump.rdb`.
            "repl-diskless-sync": "yes",
            "repl-diskless-sync-delay": "0",
            "maxmemory": self._maxmemory,
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
            "pidfile": os.fspath(self._home / "redis.pid"),
        }
        arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
        # Redis logs to stdout: errors of the dynamic linker and of its option parser never reach
        # a `logfile`.
        with self._log.open("ab") as log, starting_child() as prepare:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                [binary, *arguments],
                env=read_harmless_variables(),  # `INFO` and crash reports show them
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                umask=0o077,
                pass_fds=(lock.fileno(),),
                start_new_session=True,  # Ctrl-C must not stop Redis before the workers drain
                preexec_fn=prepare,
            )

    def _wait_until_ready(self, must_return: Callable[[], bool]) -> None:
        last_reply = last_progress = time.monotonic()
        while not (must_return() or (reply := self._send_command(b"PING")).startswith(b"+PONG")):
            now = time.monotonic()
            if (status := self.poll()) is not None:
                raise RedisStartError(
                    f"Redis exited with status {status} at startup{self._describe_log()}"
                )
            if reply.startswith(b"-LOADING"):
                last_reply = now
            if now - last_reply > READY_TIMEOUT_S:
                raise RedisStartError(
                    f"Redis did not reply for {READY_TIMEOUT_S:.0f} s at startup"
                    f"{self._describe_log()}"
                )
            if now - last_progress > PROGRESS_INTERVAL_S:
                last_progress = now
                self._log_progress()
            time.sleep(POLL_INTERVAL_S)

    def _log_progress(self) -> None:
        share = re.search(rb"loading_loaded_perc:(\d+)", self._send_command(b"INFO persistence"))
        logger.info("embedded Redis is loading its data: %s %%", int(share[1]) if share else "?")

    def _send_command(self, command: bytes) -> bytes:
        return send_command(self._socket, command, REPLY_TIMEOUT_S)

    def _describe_log(self) -> str:
        text = self._log.read_bytes()[self._log_start :].decode(errors="replace")
        if cause := find_cause(text, self._home, self.version):
            return f": {cause}. Its log: {self._log}"
        return "\n".join([f". The end of {self._log}:", *text.splitlines()[-LOG_TAIL_LINES:]])


def try_lock(lock: Callable[[IO[str], int], None], file: IO[str]) -> bool:
    """Lock `file` with `lock` (lockf or flock); return False if another process holds the lock."""
    try:
        lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # EAGAIN or EACCES: POSIX allows either
        return False
    return True
