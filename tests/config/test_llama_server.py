"""MODEL: Holdline runs a llama-server, here a fake one, and stops it with itself."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from config.children import llama_server
from config.children.llama_server import LlamaServer, LlamaServerError, find_cause
from tests import fake_llama_server
from tests.config.conftest import write_script
from tests.processes import PATIENCE_S, ROOT, holdline, private_folder, start
from tests.streams import read


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Return a PATH whose first folder has the fake llama-server."""
    source = Path(fake_llama_server.__file__).read_text()
    write_script(tmp_path / "bin" / "llama-server", f"#!{sys.executable}\n{source}")
    return f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"


@pytest.fixture
def _fake_on_path(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", path)


def write_model(folder: Path, text: str = "answer") -> Path:
    """Write a model for the fake llama-server."""
    model = folder / "Tiny-1B.gguf"
    model.write_text(f"GGUF\n{text}")
    return model


def find_llama_servers(pid: int) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended since it was listed
            if any(word.endswith("/llama-server") for word in child.cmdline()):
                found.append(child)
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
async def test_a_local_model_answers_and_stops_with_the_server(
    path: str, tmp_path: Path, question: str, number: int
) -> None:
    model = write_model(tmp_path)
    async with private_folder() as home:
        server = await start(home, PATH=path, MODEL=str(model))
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            events = await read(client, message=question)
        assert (events[-1].event, events[-1].data) == ("end", f"Tiny-1B 16384 2: {question}")
        (process,) = find_llama_servers(server.process.pid)
        await server.stop(number)
        process.wait(PATIENCE_S)
        assert "loading Tiny-1B.gguf" in server.read_log()
        assert (home / "data" / "llama-server.log").stat().st_mode & 0o077 == 0


async def test_the_operators_options_of_llama_server_take_precedence(
    path: str, tmp_path: Path, question: str
) -> None:
    options = {"LLAMA_ARG_CTX_SIZE": "4096", "LLAMA_ARG_N_PARALLEL": "1"}
    model = write_model(tmp_path)
    async with (
        holdline(PATH=path, MODEL=str(model), CHAT_MODEL="small", **options) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        events = await read(client, message=question)
        assert events[-1].data == f"Tiny-1B 4096 1: {question}"
        assert '"model": "small"' in events[0].data


async def test_a_llama_server_that_dies_is_restarted(
    path: str, tmp_path: Path, question: str
) -> None:
    model = write_model(tmp_path)
    async with (
        holdline(PATH=path, MODEL=str(model)) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        (process,) = find_llama_servers(server.process.pid)
        process.kill()
        deadline = time.monotonic() + PATIENCE_S
        while True:
            events = await read(client, message=question)
            if events[-1].event == "end":
                break
            assert time.monotonic() < deadline, server.read_log()
        assert events[-1].data == f"Tiny-1B 16384 2: {question}"
        assert "llama-server died (signal 9); restarting it" in server.read_log()


@pytest.mark.usefixtures("_fake_on_path")
def test_a_llama_server_that_keeps_dying_is_restarted_at_growing_intervals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    server = LlamaServer(write_model(tmp_path, "fail at once"), tmp_path)
    intervals = []
    for _ in range(8):
        server.start(bool)
        started_at = now
        server.stop()
        while server.poll() is None:
            now += 0.5
        intervals.append(now - started_at)
    assert intervals == [1, 2, 4, 8, 16, 30, 30, 30]
    server.start(bool)
    now += llama_server.STABLE_RUN_S
    server.stop()
    assert server.poll() is not None
    server.start(bool)
    server.stop()
    assert server.poll() is None
    now += llama_server.MIN_RESTART_INTERVAL_S
    assert server.poll() is not None


@pytest.mark.usefixtures("_fake_on_path")
def test_the_progress_of_loading_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(llama_server, "PROGRESS_INTERVAL_S", 0.1)
    with (
        caplog.at_level(logging.INFO, logger="holdline.llama_server"),
        LlamaServer(write_model(tmp_path, "load 0.5"), tmp_path),
    ):
        messages = [record.getMessage() for record in caplog.records]
    assert messages[0] == "loading Tiny-1B.gguf (0.0 GB): 0 s"
    assert sum(message.startswith("loading Tiny-1B.gguf") for message in messages) >= 3
    assert messages[-1].startswith("loaded Tiny-1B.gguf in ")


@pytest.mark.usefixtures("_fake_on_path")
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.gguf", "does not exist"),
        ("", "is a directory: name the GGUF file in it"),
        ("text.gguf", "is not a GGUF file"),
        ("empty.gguf", "is not a GGUF file"),
        ("text.gguf/below", "cannot be read: Not a directory"),
    ],
)
def test_a_path_without_a_model_is_named_in_the_error(
    tmp_path: Path, name: str, reason: str
) -> None:
    (tmp_path / "text.gguf").write_text("version https://git-lfs.github.com/spec/v1")
    (tmp_path / "empty.gguf").touch()
    with pytest.raises(LlamaServerError) as caught:
        LlamaServer(tmp_path / name, tmp_path)
    assert str(caught.value).startswith(f"MODEL {tmp_path / name} {reason}")
    assert "\n" not in str(caught.value)


def test_a_missing_or_broken_llama_server_is_named_in_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_model(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(LlamaServerError, match="needs llama-server, and there is none on the PATH"):
        LlamaServer(model, tmp_path)
    binary = write_script(tmp_path / "bin" / "llama-server", "no program")
    with pytest.raises(LlamaServerError, match=f"{binary} does not run: .*Exec format error"):
        LlamaServer(model, tmp_path).__enter__()


def test_a_model_that_does_not_load_ends_the_start_with_one_line(path: str, tmp_path: Path) -> None:
    model = write_model(tmp_path, "fail load: error loading model: unknown architecture")
    process = run_server(tmp_path, PATH=path, MODEL=str(model))
    stdout, stderr = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, stdout) == (1, b"")
    assert stderr.decode().splitlines()[-1] == (
        f"holdline: llama-server could not load {model} (exit status 1): unknown architecture. "
        f"Its log: {tmp_path / 'data' / 'llama-server.log'}"
    )
    assert b"Traceback" not in stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_server_stopped_while_a_model_loads_leaves_no_process(
    path: str, tmp_path: Path, number: int
) -> None:
    process = run_server(tmp_path, PATH=path, MODEL=str(write_model(tmp_path, "load 1000")))
    deadline = time.monotonic() + PATIENCE_S
    while not (found := find_llama_servers(process.pid)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=PATIENCE_S)
    found[0].wait(PATIENCE_S)
    assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number)
    assert b"Traceback" not in stderr


def run_server(home: Path, **settings: str) -> "subprocess.Popen[bytes]":
    """Start a server without waiting until it is ready."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "server.py")],
        cwd=home,
        env={"PORT": "0", "DATA_DIR": str(home / "data"), **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


UNKNOWN_ARCHITECTURE = """
0.00.008.193 I srv    load_model: loading model 'a.gguf'
0.00.058.443 E llama_model_load: error loading model: unknown model architecture: 'llamb'
0.00.058.463 E llama_model_load_from_file_impl: failed to load model
0.00.100.227 E srv  llama_server: exiting due to model loading error
"""
TRUNCATED_FILE = """
llama_model_load: error loading model: error loading model vocabulary: unexpected end of file
llama_model_load_from_file_impl: failed to load model
"""
NO_MEMORY = """
0.00.008.193 I srv    load_model: loading model 'a.gguf'
0.01.008.193 E alloc_tensor_range: failed to allocate CPU buffer of size 9
0.01.008.193 E srv  llama_server: exiting due to model loading error
"""
NO_LIBRARY = "llama-server: error while loading shared libraries: libgomp.so.1: no such file\n"


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        (UNKNOWN_ARCHITECTURE, "unknown model architecture: 'llamb'"),
        (TRUNCATED_FILE, "unexpected end of file"),
        (NO_MEMORY, "alloc_tensor_range: failed to allocate CPU buffer of size 9"),
        (NO_LIBRARY, NO_LIBRARY.strip()),
        ("error: invalid argument: --alias\n\n", "invalid argument: --alias"),
        ("loading model\nAMX is not ready to be used!\n", "AMX is not ready to be used!"),
        ("", "it printed nothing"),
    ],
)
def test_the_cause_of_a_failed_start_is_found_in_the_log(log: str, cause: str) -> None:
    assert find_cause(log) == cause
