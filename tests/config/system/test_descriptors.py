"""The maxima of connections that CONNECTIONS_MAX stands for."""

import sys

import pytest

from config.system.descriptors import choose_connection_limits
from config.system.memory import read_memory_limit

GIB = 1 << 30


@pytest.mark.parametrize(
    ("setting", "descriptors", "memory", "expected"),
    [
        ("auto", 1024, 64 * GIB, (128, 512)),
        ("auto", 20_000, 64 * GIB, (2500, 10_000)),
        ("auto", sys.maxsize, 64 * GIB, (2500, 10_000)),
        ("auto", sys.maxsize, 8 * GIB, (512, 2048)),
        ("auto", 20_000, GIB // 2, (250, 1000)),
        ("auto", 100, GIB // 2, (12, 50)),
        ("auto", 1, 64 * GIB, (1, 1)),
        ("auto", 1024, 1, (128, 512)),
        ("250,1000", 1024, 1, (250, 1000)),
        ("off", 1024, 1, (sys.maxsize, sys.maxsize)),
    ],
)
def test_connections_max_is_read_or_derived_from_the_open_files_and_the_memory(
    setting: str, descriptors: int, memory: int, expected: tuple[int, int]
) -> None:
    assert choose_connection_limits(setting, descriptors, memory) == expected


def test_the_memory_is_that_of_this_process() -> None:
    memory = read_memory_limit()
    expected = choose_connection_limits("auto", sys.maxsize, memory)
    assert choose_connection_limits("auto", sys.maxsize) == expected


def test_more_connections_than_open_files_cause_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    choose_connection_limits("100,2000", 1024)
    assert "1024 files" in caplog.text
