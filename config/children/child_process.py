"""Start a child of the supervisor: no signal is lost, and the child ends with its parent."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""


@contextmanager
def starting_child(death_signal: int = signal.SIGTERM) -> Iterator[Callable[[], None]]:
    """Hold SIGINT and SIGTERM back while the block starts a child; yield its `preexec_fn`.

    Python may run a signal's handler inside a callback of the fork, where an exception such as
    KeyboardInterrupt is printed and then forgotten. Held back, the signal is handled after the
    block. On Linux, the child receives `death_signal` when the thread that started it ends.
    """
    set_death_signal = make_death_signal_hook(death_signal)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])

    def prepare() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if set_death_signal:
            set_death_signal()

    try:
        yield prepare
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def make_death_signal_hook(number: int) -> Callable[[], None] | None:
    """Return a function for the child to run between fork and exec; None outside Linux.

    The child receives the signal `number` when the parent dies. libc is loaded here because loading
    it after the fork could deadlock.
    """
    if sys.platform != "linux":
        return None
    parent, prctl = os.getpid(), ctypes.CDLL(None).prctl

    def set_parent_death_signal() -> None:
        prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent:  # the parent died before the line above
            os._exit(1)

    return set_parent_death_signal
