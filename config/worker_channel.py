"""The channel between the supervisor and a worker: orders in one direction, reports in the other.

When the supervisor is gone, even if it was killed, the channel closes and the worker exits.
"""

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from multiprocessing.connection import Connection


class Order(Enum):
    """An order to a worker. A worker that is not ready yet receives it when it listens."""

    DRAIN = b"drain"
    """Finish the running answers, then exit."""
    HAND_OVER = b"hand over"
    """Exit now; other workers continue the running answers."""


READY = b"ready"
"""The report of a worker that serves. A worker that begins to drain reports a number instead."""


class WorkerChannel:
    """The worker's end of the channel."""

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
