"""Run `llama-server` with the model at MODEL, as a child process of the supervisor.

It listens on a loopback port that is chosen once, so that workers find it after a restart. It
requires a key, because every web page in a browser on this machine can send requests to loopback.

The supervisor restarts it when it dies, and does not wait until its model is loaded. Until then,
llama-server rejects requests with 503, which workers handle like the 503 of any other upstream.
"""

import http.client
import logging
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from config.children.child_process import starting_child
from config.children.restarts import describe_exit

logger = logging.getLogger("holdline.llama_server")

DEFAULTS = {"LLAMA_ARG_CTX_SIZE": "16384", "LLAMA_ARG_N_PARALLEL": "2"}
"""Options of llama-server that the operator has not set; the slots share the context."""

AUTOMATIC_SLOTS = 4
"""The number of slots that llama-server chooses if LLAMA_ARG_N_PARALLEL is -1."""

MAGIC = b"GGUF"
POLL_INTERVAL_S = 0.05
PROGRESS_INTERVAL_S = 3.0
HEALTH_TIMEOUT_S = 3.0
STOP_TIMEOUT_S = 5.0
MIN_RESTART_INTERVAL_S = 1.0
MAX_RESTART_INTERVAL_S = 30.0
"""Bounds of the time between two starts, which doubles with each short run."""

STABLE_RUN_S = 60.0


_PREFIX = re.compile(r"^[\d.]+ [A-Z] ", re.MULTILINE)
"""The time and the level of a line of the log, in recent versions."""

_CAUSES = (
    re.compile(r"error loading model: (?:error loading model \w+: )?(.+)"),
    re.compile(r"\berror: (.+)", re.IGNORECASE),
    re.compile(r"(.*\b(?:error|failed|couldn't|unable to)\b.*)", re.IGNORECASE),
)


class LlamaServerError(Exception):
    """The local model cannot run; the message tells the operator why and what to do."""


class LlamaServer:
    """A llama-server with one model, for the lifetime of this process.

    Call `start` in the main thread: PR_SET_PDEATHSIG fires when the *thread* that started the child
    exits.
    """

    name = "llama-server"

    def __init__(self, model: Path, data_dir: Path) -> None:
        """Check the file and find the program. Raises LlamaServerError."""
        self.model = find_model(model)
        self.model_name = re.sub(r"(-\d{5}-of-\d{5})?\.gguf$", "", self.model.name)
        self._binary = find_binary()
        self._log = data_dir.absolute() / "llama-server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._restart_interval_s = MIN_RESTART_INTERVAL_S
        self._port = find_free_port()
        self.base_url = f"http://127.0.0.1:{self._port}/v1"
        self.api_key = secrets.token_urlsafe(24)
        self._environment = DEFAULTS | os.environ | {"LLAMA_API_KEY": self.api_key}
        slots = self._environment["LLAMA_ARG_N_PARALLEL"]
        self.slots = int(slots) if slots.isdecimal() else AUTOMATIC_SLOTS

    def __enter__(self) -> Self:
        """Start llama-server and return when its model is loaded. Raises LlamaServerError."""
        try:
            self._log.parent.mkdir(0o700, parents=True, exist_ok=True)
            self._log.unlink(missing_ok=True)
            self._launch()
            self._wait_until_ready()
        except BaseException as error:
            self.stop()
            if isinstance(error, OSError):
                raise LlamaServerError(f"{self._binary} does not run: {error}") from error
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def poll(self) -> int | None:
        """Return the exit status if llama-server is dead and its next start is due, else None."""
        status = self._process.poll() if self._process else None
        is_due = time.monotonic() - self._started_at >= self._restart_interval_s
        return status if is_due else None

    def start(self, must_return: Callable[[], bool]) -> None:
        """Start llama-server again, without waiting until its model is loaded."""
        was_stable = time.monotonic() - self._started_at >= STABLE_RUN_S
        doubled_s = min(2 * self._restart_interval_s, MAX_RESTART_INTERVAL_S)
        self._restart_interval_s = MIN_RESTART_INTERVAL_S if was_stable else doubled_s
        try:
            self._launch()
        except OSError as error:
            logger.error("llama-server does not start (%s)", error)

    def stop(self) -> None:
        """Stop llama-server, which has no data to write. Safe to repeat."""
        if self._process:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _launch(self) -> None:
        self._started_at = time.monotonic()
        arguments = {
            "--model": os.fspath(self.model),
            "--alias": self.model_name,
            "--host": "127.0.0.1",
            "--port": str(self._port),
        }
        with (
            open(self._log, "ab", opener=open_private) as log,
            starting_child(signal.SIGKILL) as prepare,
        ):
            self._process = subprocess.Popen(
                [self._binary, *(word for pair in arguments.items() for word in pair)],
                # Every user of the machine can read arguments, but not the environment.
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C must not stop it before the workers drain
                preexec_fn=prepare,
            )

    def _wait_until_ready(self) -> None:
        size = self.model.stat().st_size / 1e9
        last_progress = -PROGRESS_INTERVAL_S
        while self._request_health() != http.client.OK:
            if self._process and (status := self._process.poll()) is not None:
                raise LlamaServerError(
                    f"llama-server could not load {self.model} ({describe_exit(status)}): "
                    f"{find_cause(self._log.read_text(errors='replace'))}. Its log: {self._log}"
                )
            elapsed = time.monotonic() - self._started_at
            if elapsed - last_progress >= PROGRESS_INTERVAL_S:
                last_progress = elapsed
                logger.info("loading %s (%.1f GB): %.0f s", self.model.name, size, elapsed)
            time.sleep(POLL_INTERVAL_S)
        logger.info("loaded %s in %.1f s", self.model.name, time.monotonic() - self._started_at)

    def _request_health(self) -> int:
        """Return the status of /health: 200 if the model is loaded; 0 without a response."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=HEALTH_TIMEOUT_S)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()


def find_model(path: Path) -> Path:
    """Return the absolute path of a GGUF file. Raises LlamaServerError if `path` is not one."""
    path = path.absolute()
    try:
        with path.open("rb") as file:
            magic = file.read(len(MAGIC))
    except FileNotFoundError:
        raise LlamaServerError(f"MODEL {path} does not exist") from None
    except IsADirectoryError:
        raise LlamaServerError(f"MODEL {path} is a directory: name the GGUF file in it") from None
    except OSError as error:
        raise LlamaServerError(f"MODEL {path} cannot be read: {error.strerror}") from None
    if magic != MAGIC:
        raise LlamaServerError(
            f"MODEL {path} is not a GGUF file, which is the format that llama-server reads"
        )
    return path


def find_binary() -> str:
    """Return the path of the llama-server on the PATH. Raises LlamaServerError."""
    if binary := shutil.which("llama-server"):
        return binary
    raise LlamaServerError(
        "MODEL needs llama-server, and there is none on the PATH: install llama.cpp "
        "(https://github.com/ggml-org/llama.cpp), or set OPENAI_BASE_URL to a running server"
    )


def find_free_port() -> int:
    """Return a loopback port on which no process listens now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def open_private(path: str, flags: int) -> int:
    """Open a file that only this user may read."""
    return os.open(path, flags, 0o600)


def find_cause(log: str) -> str:
    """Return the line of a failed start's log that states the cause.

    Each function of llama-server that a failure passes through logs it again. The first line names
    the cause.
    """
    lines = [line.strip() for line in _PREFIX.sub("", log).splitlines() if line.strip()]
    for pattern in _CAUSES:
        for line in lines:
            if found := pattern.search(line):
                return found[1].rstrip(".")
    return lines[-1] if lines else "it printed nothing"
