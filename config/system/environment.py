"""Choose the variables of the environment that child processes get."""

import os

_HARMLESS = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ", "TMPDIR")
"""The variables that a child process may need; others may be secrets."""


def read_harmless_variables() -> dict[str, str]:
    """Return the variables that are set, and contain no secret."""
    return {name: os.environ[name] for name in _HARMLESS if name in os.environ}
