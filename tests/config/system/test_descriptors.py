"""The maxima of connections that CONNECTIONS_MAX stands for."""

import sys

import pytest

from config.system.descriptors import choose_connection_limits


@pytest.mark.parametrize(
    ("setting", "descriptors", "expected"),
    [
        ("auto", 1024, (128, 512)),
        ("auto", 20_000, (2500, 10_000)),
        ("auto", sys.maxsize, (2500, 10_000)),
        ("auto", 2, (1, 1)),
        ("250,1000", 1024, (250, 1000)),
        ("off", 1024, (sys.maxsize, sys.maxsize)),
    ],
)
def test_connections_max_is_read_or_derived_from_the_limit_of_open_files(
    setting: str, descriptors: int, expected: tuple[int, int]
) -> None:
    assert choose_connection_limits(setting, descriptors) == expected


def test_more_connections_than_open_files_cause_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    choose_connection_limits("100,2000", 1024)
    assert "1024 files" in caplog.text
