"""The channel between the supervisor and a worker: orders in one direction, reports in the other.

A worker ends when its supervisor is gone, even if that was killed: then the channel is closed.
"""

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from multiprocessing.connection import Connection


class Order(Enum):
    """An order to a worker. It reaches also a worker that is not ready yet."""

    DRAIN = b"drain"
    """Finish the running answers, then exit."""
    HAND_OVER = b"hand over"
    """Exit now; other workers continue the running answers."""


READY = b"ready"
"""The report of a worker that serves. A worker that begins to drain reports its answers."""


class WorkerChannel:
    """The worker's end."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def report_ready(self) -> None:
        """Tell the supervisor that the worker serves."""
        self._send(READY)

    def report_draining(self, running: int) -> None:
        """Tell the supervisor that the worker drains, and how many answers it still generates."""
        self._send(b"%d" % running)

    def listen(self, on_order: Callable[[Order], None]) -> None:
        """Call `on_order` with each order, in the running event loop."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._connection.fileno(), self._receive, on_order)

    def _receive(self, on_order: Callable[[Order], None]) -> None:
        try:
            order = Order(self._connection.recv_bytes())
        except (EOFError, OSError):
            os._exit(1)
        on_order(order)

    def _send(self, report: bytes) -> None:
        with suppress(OSError):  # the supervisor is gone, which `_receive` notices
            self._connection.send_bytes(report)
