"""Print the address, the models and the storage at startup, and the answers to finish at a stop."""

import logging
import os
import re
import socket
import sys
from pathlib import Path

from config.children.embedded_redis import EmbeddedRedis
from config.listener import format_url
from config.settings import Settings

logger = logging.getLogger("holdline.server")


def print_banner(
    settings: Settings, listener: socket.socket, embedded_redis: EmbeddedRedis | None
) -> None:
    """Print the URL of the web UI, the upstreams in order, and the location of the data."""
    data = "the Redis at REDIS_URL"
    if embedded_redis:
        data = f"{settings.data_dir.resolve()} (embedded Redis {embedded_redis.version})"
    _print(
        f"\nHoldline   {format_url(listener)}{settings.base_path}/\n"
        f"model      {_describe_models(settings)}\n"
        f"data       {data}\n"
    )


def warn_of_rebinding(settings: Settings, *, is_local: bool) -> None:
    """Log a warning if a page could reach the server by DNS rebinding."""
    if not settings.allowed_hosts and not is_local:
        logger.warning(
            "ALLOWED_HOSTS is not set, and HOST is %s: a web page that a user opens could read "
            "conversations through DNS rebinding. Set ALLOWED_HOSTS to the server's names.",
            settings.host,
        )


def print_drain(running: int, drain_s: float) -> None:
    """Print the number of answers that a stopping server finishes, and its time in seconds."""
    answers = "1 answer" if running == 1 else f"{running} answers"
    _print(f"Finishing {answers}, up to {drain_s:g} s. Ctrl-C again to stop now.")


def _print(text: str) -> None:
    """Print a text now. The server goes on if the terminal is gone, or the disk is full."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
    except OSError as error:
        logger.warning("cannot write to standard output (%s)", error.strerror)
        # The exit would write the text that is left, fail, and change the exit status.
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115


def _describe_models(settings: Settings) -> str:
    if settings.demo:
        return "built-in demo model; set OPENAI_API_KEY, OPENAI_BASE_URL or MODEL for a real one"
    if settings.model:
        return f"{', '.join(settings.models)}, run by llama-server from {settings.model}"
    return ", then ".join(
        f"{one.model or ', '.join(settings.chat_model)} at {_without_password(one.base_url)}"
        for one in settings.all_upstreams
    )


def _without_password(url: str) -> str:
    return re.sub(r"//.*@", "//", url)
