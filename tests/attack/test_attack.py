"""The attack run itself: what it attacks, how it reports, and some of its vectors."""

import argparse

import pytest

from tests.attack.__main__ import attack, attack_all, parse_url
from tests.attack.target import Outcome, Target
from tests.attack.vectors import VECTORS, Vector

_SOME = (
    "other users' data",
    "forged forms and beacons",
    "upstream: forged frames",
)
"""Vectors that take a few seconds; `make attack` runs all."""


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000", "http://localhost:1", "http://[::1]:8000", "http://127.9.9.9"]
)
def test_a_server_on_loopback_may_be_attacked(url: str) -> None:
    assert parse_url(f"{url}/path") == url


@pytest.mark.parametrize(
    "url",
    [
        "http://192.0.2.1:8000",
        "http://0.0.0.0:8000",
        "http://[2001:db8::1]/",
        "http://127.0.0.1@192.0.2.1/",
        "https://127.0.0.1",
        "127.0.0.1:8000",
        "file:///etc/passwd",
        "",
    ],
)
def test_no_other_address_is_attacked(url: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        parse_url(url)


async def hold(target: Target) -> Outcome:
    return Outcome(True, "nothing")


async def fail(target: Target) -> Outcome:
    return Outcome(False, "everything")


async def crash(target: Target) -> Outcome:
    raise ValueError("a mistake\nin the attack")


async def test_the_exit_status_says_whether_every_defence_held(
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = "http://127.0.0.1:9"
    assert await attack_all([Vector("a", hold), Vector("b", hold)], url) == 0
    assert "2 of 2 held" in capsys.readouterr().out
    assert await attack_all([Vector("a", hold), Vector("b", fail), Vector("c", crash)], url) == 1
    table = capsys.readouterr().out
    assert "1 of 3 held" in table
    assert table.count("NOT held") == 2
    assert "ValueError a mistake in the attack" in table


def test_all_vectors_have_different_names() -> None:
    names = [vector.name for vector in VECTORS]
    assert len(set(names)) == len(names) > 60
    assert set(_SOME) <= set(names)


@pytest.mark.parametrize("name", _SOME)
async def test_a_vector_does_no_harm(name: str) -> None:
    (vector,) = [one for one in VECTORS if one.name == name]
    outcome = await attack(vector)
    assert outcome.held, outcome.happened
