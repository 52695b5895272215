"""The log: times in UTC, and no characters that forge lines or alter a terminal."""

import io
import logging
import re

import pytest

from config.logging import Formatter

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@pytest.fixture
def log() -> tuple[logging.Logger, io.StringIO]:
    """Return a logger with the formatter, and the stream that it writes to."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Formatter(FORMAT))
    logger = logging.getLogger("test")
    logger.addHandler(handler)
    return logger, stream


def test_times_are_in_utc(log: tuple[logging.Logger, io.StringIO]) -> None:
    record = logging.LogRecord("test", logging.INFO, "", 0, "text", (), None)
    record.created, record.msecs = 1_700_000_000.25, 250.0
    assert Formatter(FORMAT).format(record) == "2023-11-14T22:13:20.250Z INFO test: text"


@pytest.mark.parametrize(
    "text",
    ["a\nb", "a\r\nb", "a\x1b[31mb", "a\0b", "a\x7fb", "a\x9bb", "a\u2028b", "a\u202eb", "a\tb"],
)
def test_control_characters_are_escaped(log: tuple[logging.Logger, io.StringIO], text: str) -> None:
    logger, stream = log
    logger.warning("%s", text)
    (line,) = stream.getvalue().splitlines()
    assert line.isprintable()
    assert re.search(r"a\\\w.*b$", line)


def test_all_lines_of_a_traceback_but_the_first_are_indented(
    log: tuple[logging.Logger, io.StringIO],
) -> None:
    logger, stream = log
    try:
        raise ValueError("first\n2026-01-01T00:00:00.000Z ERROR forged: \x1b[31mred")
    except ValueError:
        logger.exception("failed")
    first, *rest = stream.getvalue().splitlines()
    assert first.endswith("ERROR test: failed")
    assert rest
    assert all(line.startswith("  ") and line.isprintable() for line in rest)
