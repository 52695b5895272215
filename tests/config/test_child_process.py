"""A signal that arrives while a child is started is handled, and the child can receive signals."""

import signal
import subprocess
import sys

import pytest

from tests.processes import PATIENCE_S, ROOT

PROGRAM = """
import os, signal, subprocess, sys
from config.children.child_process import starting_child
os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), int(sys.argv[1])))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
report = "import signal; print(signal.pthread_sigmask(signal.SIG_BLOCK, []))"
try:
    with starting_child() as prepare:
        child = subprocess.Popen([sys.executable, "-c", report], preexec_fn=prepare)
    print("the signal is lost")
except BaseException as error:
    child.wait()
    print(repr(error))
"""


@pytest.mark.parametrize(
    ("number", "handled"),
    [(signal.SIGINT, "KeyboardInterrupt()"), (signal.SIGTERM, "SystemExit(143)")],
)
def test_a_signal_during_the_fork_is_handled_after_it(number: int, handled: str) -> None:
    program = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(int(number))],
        cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=True,
    )  # fmt: skip
    assert program.stdout.splitlines() == ["set()", handled]
    assert not program.stderr
