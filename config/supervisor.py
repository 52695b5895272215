"""The processes that serve: one supervisor that holds the socket and the private Redis, and its workers.

Sanic's own manager leaves a worker that was killed dead, and with all of them dead the port accepts and
hangs. So workers are forked here, each a plain single-process server on the shared socket; one that dies is
replaced, and all end with the supervisor, however that ends.
"""

import logging
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Protocol

logger = logging.getLogger("holdline.workers")

_STOP_S = 12
"""How long workers may take to stop, in seconds: their drain takes under 9."""

_fork = multiprocessing.get_context("fork")


class StartError(Exception):
    """The server cannot start; the message says what to do."""


class Child(Protocol):
    """Another process that the server needs: it is started again when it dies."""

    def poll(self) -> int | None: ...
    def stop(self) -> None: ...
    def start(self) -> None: ...


Serve = Callable[[socket.socket, Callable[[], None], int], None]
"""Serves on a socket until SIGTERM; calls its second argument when ready, exits when a descriptor closes."""


def bind(host: str, port: int) -> socket.socket:
    """The listening socket; port 0 lets the system choose. Raises StartError when it is not to be had."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=4096)
    except OSError as error:
        raise StartError(
            f"cannot listen on {host} port {port} ({error.strerror}): set HOST or PORT"
        ) from None


class Workers:
    """Runs `count` workers until SIGTERM or SIGINT."""

    def __init__(
        self, serve: Serve, listener: socket.socket, count: int, child: Child | None
    ) -> None:
        self._serve = serve
        self._listener = listener
        self._count = count
        self._child = child
        self._life, self._hold = os.pipe()
        self._ready: dict[Connection, None] = {}
        self._workers: dict[int, multiprocessing.process.BaseProcess] = {}
        self._stopping = False
        self._woken, waker = socket.socketpair()
        waker.setblocking(False)
        self._waker = waker

    def run(self, on_ready: Callable[[], None]) -> int:
        """Start the workers, call `on_ready` when all are up, replace the dead; gives the exit status."""
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        for _ in range(self._count):
            self._start_worker()
        announced = False
        while not self._stopping:
            self._wait(1.0)
            dead = [pid for pid, worker in self._workers.items() if not worker.is_alive()]
            if dead and not announced:
                logger.error("a worker could not start; see above")
                self._end_workers()
                return 1
            if not announced and not self._ready:
                announced = True
                on_ready()
            for pid in dead:
                logger.error(
                    "worker %d died (%s) and is replaced", pid, self._workers.pop(pid).exitcode
                )
                self._start_worker()
            if self._child and self._child.poll() is not None:
                logger.error("the private Redis died and is started again")
                self._child.stop()
                self._child.start()
        self._end_workers()
        return 0

    def _stop(self, number: int, frame: object) -> None:
        self._stopping = True

    def _start_worker(self) -> None:
        ready, tell = _fork.Pipe(duplex=False)
        worker = _fork.Process(target=self._work, args=(tell,), daemon=False)
        worker.start()
        tell.close()
        self._ready[ready] = None
        assert worker.pid is not None
        self._workers[worker.pid] = worker

    def _work(self, tell: Connection) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        # A Ctrl-C reaches the whole group of the terminal; the supervisor passes it on in its own time.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.close(self._hold)
        self._serve(self._listener, lambda: tell.send_bytes(b"ready"), self._life)

    def _wait(self, timeout_s: float) -> None:
        sentinels = [worker.sentinel for worker in self._workers.values()]
        for done in wait([*self._ready, *sentinels, self._woken], timeout_s):
            if done is self._woken:
                self._woken.recv(4096)
            elif isinstance(done, Connection):
                self._ready.pop(done)  # it said "ready", or died before it could
                done.close()

    def _end_workers(self) -> None:
        for worker in self._workers.values():
            worker.terminate()
        deadline = time.monotonic() + _STOP_S
        for worker in self._workers.values():
            worker.join(max(0.0, deadline - time.monotonic()))
            if worker.is_alive():
                logger.error("worker %s did not stop and is killed", worker.pid)
                worker.kill()
                worker.join()
