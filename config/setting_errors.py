"""Describe an invalid setting in one line."""

import os
from collections.abc import Mapping

from pydantic import ValidationError


def describe_first(error: ValidationError, lines: Mapping[str, int]) -> str:
    """Return the first error in one line, without the value, which may be a secret.

    `lines` are those of `.env`, which the environment precedes.
    """
    details = error.errors(include_url=False, include_input=False)[0]
    setting = str(details["loc"][0]).upper()
    name = " ".join([setting, *map(str, details["loc"][1:])])
    is_in_environment = any(value and key.upper() == setting for key, value in os.environ.items())
    place = f" (.env line {lines[setting]})" if setting in lines and not is_in_environment else ""
    reason = details["msg"].removeprefix("Value error, ")
    return f"{name} is invalid{place}: {reason[0].lower()}{reason[1:]}"
