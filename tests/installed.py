"""Tests that need programs which not every machine has."""

import os

import pytest


def require(program: str, found: object) -> None:
    """Skip the test if the program was not found; in continuous integration, fail."""
    if not found:
        if os.environ.get("CI"):
            pytest.fail(f"{program} is not installed")
        pytest.skip(f"not run, because it is not installed: {program}")
