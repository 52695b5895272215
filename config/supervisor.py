"""Run the server's processes: a supervisor that owns the socket and embedded Redis, and workers.

Sanic's manager does not replace a killed worker, and when all of them are dead the port accepts
connections that no process serves. Therefore workers are forked here, each a plain single-process
server on the shared socket. A worker that dies is replaced, with a growing delay if it dies soon
after its start. All workers exit with the supervisor, even if it is killed.

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

from config.children.restarts import Child, Children, Restarts, describe_exit
from config.worker_channel import READY, Order, WorkerChannel

logger = logging.getLogger("holdline.supervisor")

STOP_TIMEOUT_S = 12
"""Seconds after DRAIN_S in which workers must hand over their turns and exit; they need under 9."""

GIVE_UP_S = 300.0
"""Seconds without a worker that is ready after which the server exits."""

_POLL_INTERVAL_S = 1.0
"""How often the children are polled; the death of a worker is noticed immediately."""

_fork = multiprocessing.get_context("fork")

Serve = Callable[[socket.socket, WorkerChannel], None]
"""Serve on a socket until an order or SIGTERM, and return when the worker has drained."""


class Phase(Enum):
    """The phase of a worker's life."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"
    """After an order or SIGTERM, it finishes its answers and then exits."""


class Worker:
    """A worker process, and the supervisor's end of its channel."""

    def __init__(self, process: BaseProcess, channel: Connection, restarts: Restarts) -> None:
        self.process = process
        self.restarts = restarts
        """The starts of this worker and of those that it replaces."""
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
        self._children = Children(children)
        self._drain_s = drain_s
        self._workers: list[Worker] = []
        self._waiting: list[Restarts] = []
        """Workers that are dead, and when they are replaced."""
        self._ready_at = 0.0
        self._signals = 0  # received so far
        self._is_stopping = False
        self._wakeup_reader, self._wakeup_writer = socket.socketpair()
        self._wakeup_writer.setblocking(False)

    def run(self, on_ready: Callable[[], None], on_drain: Callable[[int], None]) -> int:
        """Start the workers, replace those that die, and return the exit status.

        The status is 1 after GIVE_UP_S without a worker that is ready. `on_ready` is called once,
        when all workers are ready; `on_drain` when they drain, with the number of answers that they
        finish, unless it is 0.
        """
        self._handle_signals()
        self._ready_at = time.monotonic()
        self._waiting = [Restarts() for _ in range(self._count)]
        try:
            return self._supervise(on_ready, on_drain)
        finally:
            # Only an error leaves workers. multiprocessing would wait for them when this process
            # exits, and the port would stay open.
            self._kill_workers()

    def _supervise(self, on_ready: Callable[[], None], on_drain: Callable[[int], None]) -> int:
        announced = False
        while not self._signals:
            self._start_due_workers()
            self._wait()
            for worker in self._remove_dead_workers():
                self._replace_dead_worker(worker)
            phases = [one.phase for one in self._workers]
            if Phase.SERVING in phases:
                self._ready_at = time.monotonic()
            elif time.monotonic() - self._ready_at > GIVE_UP_S:
                logger.error("no worker has become ready for %g s; stopping", GIVE_UP_S)
                self._stop_workers(Order.HAND_OVER, on_drain)
                return 1
            if not announced and not self._waiting and Phase.STARTING not in phases:
                announced = True
                on_ready()
            self._children.restart_dead(self._must_return)
        self._stop_workers(Order.DRAIN, on_drain)
        return 0

    def _handle_signals(self) -> None:
        signal.set_wakeup_fd(self._wakeup_writer.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._count_signal)

    def _count_signal(self, number: int, frame: object) -> None:
        self._signals += 1

    def _must_return(self) -> bool:
        return self._signals > 0 or self._is_stopping

    def _start_due_workers(self) -> None:
        now = time.monotonic()
        due = [restarts for restarts in self._waiting if restarts.due_at <= now]
        self._waiting = [restarts for restarts in self._waiting if restarts.due_at > now]
        for restarts in due:
            self._start_worker(restarts)

    def _start_worker(self, restarts: Restarts) -> int | None:
        """Start a worker and return its process id, or None if a later try is due."""
        restarts.note_start(time.monotonic())
        try:
            ours, theirs = _fork.Pipe()
            process = _fork.Process(target=self._run_worker, args=(ours, theirs), daemon=False)
            process.start()
        except OSError as error:  # a limit of the system: a later try may succeed
            delay_s = restarts.note_death(time.monotonic())
            self._waiting.append(restarts)
            logger.error("cannot start a worker (%s); next try in %g s", error, delay_s)
            return None
        theirs.close()
        self._workers.append(Worker(process, ours, restarts))
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
        """Return on a report, a signal or the death of a worker, or when a start may be due."""
        workers = {one.channel: one for one in self._workers if one.channel}
        sentinels = [one.process.sentinel for one in self._workers]
        delays_s = [restarts.due_at - time.monotonic() for restarts in self._waiting]
        timeout_s = max(0, min([_POLL_INTERVAL_S, *delays_s]))
        for source in wait([*workers, *sentinels, self._wakeup_reader], timeout_s):
            if source is self._wakeup_reader:
                self._wakeup_reader.recv(4096)
            elif isinstance(source, Connection):
                self._receive(workers[source])

    def _receive(self, worker: Worker) -> None:
        worker.receive()
        if worker.phase is Phase.DRAINING and not (self._signals or self._is_stopping):
            # The worker alone has received SIGTERM.
            pid = self._start_worker(Restarts())
            replacement = f"worker {pid} replaces it" if pid else "its replacement starts later"
            logger.info("worker %d drains; %s", worker.process.pid, replacement)

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
        delay_s = dead.restarts.note_death(time.monotonic())
        self._waiting.append(dead.restarts)
        logger.error("worker %d died (%s); replacing it in %g s", pid, status, delay_s)

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

    def _stop_workers(self, order: Order, on_drain: Callable[[int], None]) -> None:
        """Let the workers obey an order, and after a second signal hand over their answers."""
        self._is_stopping = True
        self._waiting.clear()  # no worker is replaced any more
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
            self._children.restart_dead(self._must_return)
            if time.monotonic() - ordered_at > timeout_s:
                for worker in self._workers:
                    pid = worker.process.pid
                    logger.error("worker %d did not stop in %g s; killing it", pid, timeout_s)
                self._kill_workers()

    def _order(self, order: Order) -> None:
        for worker in self._workers:
            worker.order(order)
            if worker.phase is Phase.STARTING:  # it has no turns: do not wait until it listens
                worker.process.terminate()

    def _kill_workers(self) -> None:
        for worker in self._workers:
            worker.process.kill()
            worker.process.join()
