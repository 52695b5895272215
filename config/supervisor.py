"""Run the server's processes: a supervisor that owns the socket and embedded Redis, and workers.

Sanic's manager does not replace a killed worker, and when all of them are dead the port accepts
connections that no process serves. Therefore workers are forked here, each a plain single-process
server on the shared socket. A worker that dies is replaced. All workers exit with the supervisor,
even if it is killed.
"""

import logging
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Protocol

logger = logging.getLogger("holdline.supervisor")

_STOP_TIMEOUT_S = 12
"""How long workers may take to exit; draining takes less than 9 s."""

_POLL_INTERVAL_S = 1.0
"""How often the child is polled; the death of a worker is noticed immediately."""

_fork = multiprocessing.get_context("fork")


class StartError(Exception):
    """The server cannot start; the message names the setting to change."""


class Child(Protocol):
    """Another process that the server needs, restarted when it dies: the embedded Redis."""

    def poll(self) -> int | None: ...
    def stop(self) -> None: ...
    def start(self) -> None: ...


Serve = Callable[[socket.socket, Callable[[], None], int], None]
"""Serve on a socket until SIGTERM.

The second argument must be called when the worker is ready. The third is a file descriptor that
becomes readable when the supervisor is gone: the worker must then exit.
"""


def bind(host: str, port: int) -> socket.socket:
    """Return the listening socket; port 0 lets the system choose. Raises StartError."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=4096)
    except OSError as error:
        raise StartError(
            f"cannot listen on {host} port {port} ({error.strerror}): set HOST or PORT"
        ) from None


def describe_exit(code: int | None) -> str:
    """Describe the exit code of a `Process` or `Popen`, such as "signal 9" or "exit status 1"."""
    return f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"


class Supervisor:
    """Keep `count` workers and the child running until SIGTERM or SIGINT."""

    def __init__(
        self, serve: Serve, listener: socket.socket, count: int, child: Child | None
    ) -> None:
        self._serve = serve
        self._listener = listener
        self._count = count
        self._child = child
        # The supervisor never writes to the pipe. The read end becomes readable when the last
        # write end closes, which is the supervisor's.
        self._supervisor_fd, self._pipe_writer = os.pipe()
        self._starting: dict[Connection, None] = {}
        self._workers: dict[int, BaseProcess] = {}
        self._stopping = False
        self._wakeup_reader, self._wakeup_writer = socket.socketpair()
        self._wakeup_writer.setblocking(False)

    def run(self, on_ready: Callable[[], None]) -> int:
        """Start the workers, replace those that die, and return the exit status.

        `on_ready` is called once, when all workers are ready.
        """
        self._handle_signals()
        for _ in range(self._count):
            self._start_worker()
        announced = False
        while not self._stopping:
            self._wait()
            dead = self._remove_dead_workers()
            if dead and not announced:
                logger.error(
                    "a worker failed to start (%s); stopping", describe_exit(dead[0].exitcode)
                )
                self._terminate_workers()
                return 1
            if not announced and not self._starting:
                announced = True
                on_ready()
            for worker in dead:
                self._replace_worker(worker)
            self._restart_dead_child()
        self._terminate_workers()
        return 0

    def _handle_signals(self) -> None:
        signal.set_wakeup_fd(self._wakeup_writer.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._request_stop)

    def _request_stop(self, number: int, frame: object) -> None:
        self._stopping = True

    def _start_worker(self) -> int:
        ready_receiver, ready_sender = _fork.Pipe(duplex=False)
        worker = _fork.Process(target=self._run_worker, args=(ready_sender,), daemon=False)
        worker.start()
        ready_sender.close()
        self._starting[ready_receiver] = None
        assert worker.pid is not None
        self._workers[worker.pid] = worker
        return worker.pid

    def _run_worker(self, ready_sender: Connection) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        # Ctrl-C reaches every process of the terminal; the supervisor stops its workers itself.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.close(self._pipe_writer)
        self._serve(self._listener, lambda: ready_sender.send_bytes(b"ready"), self._supervisor_fd)

    def _wait(self) -> None:
        """Return when a worker is ready or dead, on a signal, or after `_POLL_INTERVAL_S`."""
        sentinels = [worker.sentinel for worker in self._workers.values()]
        for source in wait([*self._starting, *sentinels, self._wakeup_reader], _POLL_INTERVAL_S):
            if source is self._wakeup_reader:
                self._wakeup_reader.recv(4096)
            elif isinstance(source, Connection):
                self._starting.pop(source)  # the worker is ready, or has died
                source.close()

    def _remove_dead_workers(self) -> list[BaseProcess]:
        dead = [worker for worker in self._workers.values() if not worker.is_alive()]
        for worker in dead:
            assert worker.pid is not None
            del self._workers[worker.pid]
        return dead

    def _replace_worker(self, dead: BaseProcess) -> None:
        logger.error("worker %d died (%s); replacing it", dead.pid, describe_exit(dead.exitcode))
        logger.info("worker %d replaces worker %d", self._start_worker(), dead.pid)

    def _restart_dead_child(self) -> None:
        if self._child and (status := self._child.poll()) is not None:
            logger.error("embedded Redis died (%s); restarting it", describe_exit(status))
            started_at = time.monotonic()
            self._child.stop()
            self._child.start()
            logger.warning("embedded Redis restarted in %.2f s", time.monotonic() - started_at)

    def _terminate_workers(self) -> None:
        for worker in self._workers.values():
            worker.terminate()
        deadline = time.monotonic() + _STOP_TIMEOUT_S
        for worker in self._workers.values():
            worker.join(max(0.0, deadline - time.monotonic()))
            if worker.is_alive():
                logger.error(
                    "worker %d did not exit within %d s of SIGTERM; killing it",
                    worker.pid,
                    _STOP_TIMEOUT_S,
                )
                worker.kill()
                worker.join()
