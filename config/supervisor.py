"""Run the server's processes: a supervisor that owns the socket and embedded Redis, and workers.

Sanic's manager does not replace a killed worker, and when all of them are dead the port accepts
connections that no process serves. Therefore workers are forked here, each a plain single-process
server on the shared socket. A worker that dies is replaced. All workers exit with the supervisor,
even if it is killed.

Only the supervisor ends workers, by an order over their channel. A terminal or an init system may
send its signals to every process. Therefore a worker ignores SIGINT, and drains after SIGTERM.
"""

import logging
import multiprocessing
import signal
import socket
import time
from collections.abc import Callable, Sequence
from enum import Enum
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Protocol

from config.worker_channel import READY, Order, WorkerChannel

logger = logging.getLogger("holdline.supervisor")

STOP_TIMEOUT_S = 12
"""Seconds after DRAIN_S in which workers must hand over their turns and exit; they need under 9."""

_POLL_INTERVAL_S = 1.0
"""How often the children are polled; the death of a worker is noticed immediately."""

_fork = multiprocessing.get_context("fork")


class StartError(Exception):
    """The server cannot start; the message names the setting to change."""


class Child(Protocol):
    """Another process that the server needs, restarted when it dies, such as the embedded Redis.

    `poll` returns an exit status when the process must be restarted.
    """

    name: str

    def poll(self) -> int | None: ...
    def stop(self) -> None: ...
    def start(self) -> None: ...


Serve = Callable[[socket.socket, WorkerChannel], None]
"""Serve on a socket until an order or SIGTERM, and return when the worker has drained."""


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


class Phase(Enum):
    """The phase of a worker's life."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"
    """After an order or SIGTERM, it finishes its answers and then exits."""


class Worker:
    """A worker process, and the supervisor's end of its channel."""

    def __init__(self, process: BaseProcess, channel: Connection) -> None:
        self.process = process
        self.channel: Connection | None = channel
        """None when the worker has closed its end, which it does only by exiting."""
        self.phase = Phase.STARTING
        self.running = 0
        """Answers that the worker was generating when it began to drain."""

    def order(self, order: Order) -> None:
        """Send an order; do nothing if the worker is dead."""
        try:
            if self.channel:
                self.channel.send_bytes(order.value)
        except OSError:
            self.close()

    def receive(self) -> None:
        """Read one report, and enter its phase."""
        assert self.channel
        try:
            report = self.channel.recv_bytes()
        except (EOFError, OSError):
            self.close()
            return
        if report == READY:
            self.phase = Phase.SERVING
        else:
            self.phase, self.running = Phase.DRAINING, int(report)

    def close(self) -> None:
        """Close the channel."""
        if self.channel:
            self.channel.close()
        self.channel = None


class Supervisor:
    """Keep `count` workers and the children running until SIGTERM or SIGINT.

    A worker may take `drain_s` seconds to finish its answers, and STOP_TIMEOUT_S to hand over the
    rest.
    """

    def __init__(
        self,
        serve: Serve,
        listener: socket.socket,
        count: int,
        children: Sequence[Child],
        drain_s: float,
    ) -> None:
        self._serve = serve
        self._listener = listener
        self._count = count
        self._children = children
        self._drain_s = drain_s
        self._workers: list[Worker] = []
        self._signals = 0  # received so far
        self._is_stopping = False
        self._wakeup_reader, self._wakeup_writer = socket.socketpair()
        self._wakeup_writer.setblocking(False)

    def run(self, on_ready: Callable[[], None], on_drain: Callable[[int], None]) -> int:
        """Start the workers, replace those that die, and return the exit status.

        `on_ready` is called once, when all workers are ready; `on_drain` when they drain, with the
        number of answers that they finish, unless it is 0.
        """
        self._handle_signals()
        for _ in range(self._count):
            self._start_worker()
        announced = False
        while not self._signals:
            self._wait()
            dead = self._remove_dead_workers()
            if dead and not announced:
                status = describe_exit(dead[0].process.exitcode)
                logger.error("a worker failed to start (%s); stopping", status)
                self._stop_workers(Order.HAND_OVER, on_drain)
                return 1
            if not announced and all(one.phase is not Phase.STARTING for one in self._workers):
                announced = True
                on_ready()
            for worker in dead:
                self._replace_dead_worker(worker)
            self._restart_dead_children()
        self._stop_workers(Order.DRAIN, on_drain)
        return 0

    def _handle_signals(self) -> None:
        signal.set_wakeup_fd(self._wakeup_writer.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._count_signal)

    def _count_signal(self, number: int, frame: object) -> None:
        self._signals += 1

    def _start_worker(self) -> int:
        ours, theirs = _fork.Pipe()
        process = _fork.Process(target=self._run_worker, args=(ours, theirs), daemon=False)
        process.start()
        theirs.close()
        self._workers.append(Worker(process, ours))
        assert process.pid is not None
        return process.pid

    def _run_worker(self, ours: Connection, theirs: Connection) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        ours.close()
        for worker in self._workers:
            worker.close()  # only the supervisor may hold its ends of the channels
        self._serve(self._listener, WorkerChannel(theirs))

    def _wait(self) -> None:
        """Return on a report, a signal or the death of a worker, or after `_POLL_INTERVAL_S`."""
        workers = {one.channel: one for one in self._workers if one.channel}
        sentinels = [one.process.sentinel for one in self._workers]
        for source in wait([*workers, *sentinels, self._wakeup_reader], _POLL_INTERVAL_S):
            if source is self._wakeup_reader:
                self._wakeup_reader.recv(4096)
            elif isinstance(source, Connection):
                self._receive(workers[source])

    def _receive(self, worker: Worker) -> None:
        worker.receive()
        if worker.phase is Phase.DRAINING and not (self._signals or self._is_stopping):
            # The worker alone has received SIGTERM.
            pid = self._start_worker()
            logger.info("worker %d drains; worker %d replaces it", worker.process.pid, pid)

    def _remove_dead_workers(self) -> list[Worker]:
        dead = [worker for worker in self._workers if not worker.process.is_alive()]
        for worker in dead:
            self._workers.remove(worker)
            worker.close()
        return dead

    def _replace_dead_worker(self, dead: Worker) -> None:
        if dead.phase is Phase.DRAINING:  # it was replaced when it began to drain
            self._log_exit(dead)
            return
        pid, status = dead.process.pid, describe_exit(dead.process.exitcode)
        logger.error("worker %d died (%s); replacing it", pid, status)
        logger.info("worker %d replaces worker %d", self._start_worker(), pid)

    def _log_exit(self, worker: Worker) -> None:
        """Log that a worker which had to exit has stopped, or that it died instead."""
        pid, status = worker.process.pid, worker.process.exitcode
        if status == 0 or (worker.phase is Phase.STARTING and status == -signal.SIGTERM):
            level = logging.DEBUG if self._is_stopping else logging.INFO
            logger.log(level, "worker %d has stopped", pid)
        else:
            logger.error(
                "worker %d died (%s) while it drained; its answers are continued elsewhere",
                pid,
                describe_exit(status),
            )

    def _restart_dead_children(self) -> None:
        for child in self._children:
            if (status := child.poll()) is not None:
                logger.error("%s died (%s); restarting it", child.name, describe_exit(status))
                started_at = time.monotonic()
                child.stop()
                child.start()
                elapsed_s = time.monotonic() - started_at
                logger.warning("%s restarted in %.2f s", child.name, elapsed_s)

    def _stop_workers(self, order: Order, on_drain: Callable[[int], None]) -> None:
        """Let the workers obey an order, and after a second signal hand over their answers."""
        self._is_stopping = True
        # Workers hold copies of the socket: connections are refused when the last one closes it.
        self._listener.close()
        self._order(order)
        drain_s = self._drain_s if order is Order.DRAIN else 0
        timeout_s, ordered_at = drain_s + STOP_TIMEOUT_S, time.monotonic()
        announced = drain_s == 0
        while self._workers:
            if self._signals > 1 and order is Order.DRAIN:
                order = Order.HAND_OVER
                self._order(order)
                timeout_s, ordered_at = STOP_TIMEOUT_S, time.monotonic()
                announced = True
            self._wait()
            for worker in self._remove_dead_workers():
                self._log_exit(worker)
            if not announced and all(one.phase is Phase.DRAINING for one in self._workers):
                announced = True
                if running := sum(one.running for one in self._workers):
                    on_drain(running)
            self._restart_dead_children()
            if time.monotonic() - ordered_at > timeout_s:
                self._kill_workers(timeout_s)

    def _order(self, order: Order) -> None:
        for worker in self._workers:
            worker.order(order)
            if worker.phase is Phase.STARTING:  # it has no turns: do not wait until it listens
                worker.process.terminate()

    def _kill_workers(self, timeout_s: float) -> None:
        for worker in self._workers:
            pid = worker.process.pid
            logger.error("worker %d did not stop within %g s; killing it", pid, timeout_s)
            worker.process.kill()
            worker.process.join()
