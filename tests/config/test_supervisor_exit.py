"""The supervisor always ends: after any error, without its terminal, and with stuck workers."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.processes import PATIENCE_S, ROOT

PROGRAM = """
import os, signal, socket, sys, time
from config import supervisor
from config.banner import print_drain
from config.logging import start_logging

start_logging("debug")
supervisor.STOP_TIMEOUT_S = 1

def serve(listener, channel):  # a worker that no order and no signal ends
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    with open(sys.argv[1], "a") as file:
        print(os.getpid(), listener.getsockname()[1], file=file)
    channel.report_ready()
    while True:
        signal.pause()

def stop():
    os.kill(os.getpid(), signal.SIGTERM)

def fail(*arguments):
    raise RuntimeError("made by the test")

class Child:
    name = "child"
    def poll(self): return None
    def stop(self): pass
    def start(self, must_return): pass

child, on_ready, drain_s = Child(), stop, 0
exec(sys.argv[2])
listener = socket.create_server(("127.0.0.1", 0))
status = supervisor.Supervisor(serve, listener, 2, [child], drain_s).run(on_ready, print)
exec(sys.argv[3])
sys.exit(status)
"""


def supervise(
    folder: Path,
    before: str = "",
    after: str = "",
    prepare: Callable[[], object] | None = None,
) -> "subprocess.CompletedProcess[str]":
    """Run PROGRAM with code before and after its supervisor; no worker may be left, or the port."""
    workers = folder / "workers"
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(workers), before, after],
        cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        preexec_fn=prepare, env={"PATH": os.environ["PATH"]},  # with buffers: as users run it
    )  # fmt: skip
    started = [line.split() for line in workers.read_text().splitlines()]
    assert started
    assert not [pid for pid, _ in started if psutil.pid_exists(int(pid))]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(started[0][1])))
    return process


@pytest.mark.parametrize(
    "fault",
    [
        "on_ready = fail",
        "child.poll = fail",
        "child.poll = lambda: 1; child.stop = fail",
        "supervisor.Worker.receive = fail",
        "supervisor.Supervisor._remove_dead_workers = fail",
        "supervisor.Supervisor._stop_workers = fail",
        "supervisor.Supervisor._order = fail",
        "child.start = fail; child.poll = lambda: 1; supervisor.logger.error = fail",
    ],
)
def test_an_error_in_the_supervisor_ends_its_workers_and_the_process(
    tmp_path: Path, fault: str
) -> None:
    # The first error comes when the workers run: they have written their ids.
    wait = f"""
def wait(*arguments, wait=supervisor.wait):
    while len(open(sys.argv[1]).readlines() if os.path.exists(sys.argv[1]) else []) < 2:
        time.sleep(0.01)
    return wait(*arguments)
supervisor.wait = wait
{fault}
"""
    process = supervise(tmp_path, wait)
    assert process.returncode == 1
    assert "made by the test" in process.stderr


SINKS: dict[str, Callable[[], object]] = {
    "banner on a full disk": lambda: os.dup2(os.open("/dev/full", os.O_WRONLY), 1),
    "banner to a closed pipe": lambda: os.dup2(make_closed_pipe(), 1),
    "banner to nothing": lambda: os.close(1),
    "log on a full disk": lambda: os.dup2(os.open("/dev/full", os.O_WRONLY), 2),
    "log to a closed pipe": lambda: os.dup2(make_closed_pipe(), 2),
    "log to nothing": lambda: os.close(2),
}


def make_closed_pipe() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.mark.parametrize("sink", SINKS)
def test_a_server_that_cannot_write_its_banner_or_log_runs_and_stops(
    tmp_path: Path, sink: str
) -> None:
    before = """
def on_ready():
    print_drain(1, 0)
    supervisor.logger.error("a line")
    stop()
"""
    process = supervise(tmp_path, before, prepare=SINKS[sink])
    assert process.returncode == 0


def test_a_banner_is_printed_in_any_encoding(tmp_path: Path) -> None:
    code = "import sys; from config.banner import _print; _print(sys.argv[1])"
    process = subprocess.run(
        [sys.executable, "-c", code, "/数据"],
        cwd=ROOT, env={"PYTHONIOENCODING": "ascii"}, capture_output=True, check=True,
    )  # fmt: skip
    assert process.stdout == rb"/\u6570\u636e" + b"\n"


def test_stuck_workers_are_killed_after_the_drain_by_an_idle_supervisor(
    tmp_path: Path,
) -> None:
    before = """
drain_s = 1
def on_ready():
    global began
    began = time.monotonic(), time.process_time()
    stop()
"""
    after = "print(time.monotonic() - began[0], time.process_time() - began[1])"
    process = supervise(tmp_path, before, after)
    assert process.returncode == 0
    assert process.stderr.count("did not stop in 2 s; killing it") == 2
    elapsed_s, cpu_s = map(float, process.stdout.split())
    assert elapsed_s >= 2
    assert cpu_s < 0.1 * elapsed_s


def test_a_signal_ends_a_supervisor_that_waits_for_a_child(tmp_path: Path) -> None:
    before = """
class Loading(Child):
    def poll(self): return None if on_ready is None else 1
    def start(self, must_return):
        stop()
        while not must_return():
            time.sleep(0.01)
child = Loading()
on_ready = print
"""
    process = supervise(tmp_path, before)
    assert process.returncode == 0


def test_a_worker_that_cannot_be_forked_is_started_later(tmp_path: Path) -> None:
    before = """
def start(process, start=supervisor._fork.Process.start):
    supervisor._fork.Process.start = start
    raise BlockingIOError(11, "Resource temporarily unavailable")
supervisor._fork.Process.start = start
"""
    process = supervise(tmp_path, before)
    assert process.returncode == 0
    assert "cannot start a worker ([Errno 11] Resource temporarily unavailable)" in process.stderr
    assert len((tmp_path / "workers").read_text().splitlines()) == 2


def test_sigterm_ends_the_server_while_it_is_still_importing(tmp_path: Path) -> None:
    """It needs a handler for that: the kernel ignores a signal to PID 1 that has none."""
    (tmp_path / "sanic.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n")
    process = subprocess.run(
        [sys.executable, str(ROOT / "server.py")],
        cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert process.returncode == 143
