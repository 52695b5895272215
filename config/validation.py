"""Check the values of settings, with errors that state what a value must be."""

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, SecretStr


def _check_rate(value: str) -> str:
    if value != "off" and not re.fullmatch(r"[1-9]\d{0,5}/(second|minute|hour)", value):
        raise ValueError("must be off, or a limit such as 60/minute, 5/second or 900/hour")
    return value


def _check_http_url(value: str) -> str:
    check_port(value)
    if not re.match(r"https?://[^/]", value):
        raise ValueError("must begin with http:// or https:// and name a host")
    if re.search(r"[?#\s]", value):
        raise ValueError("must end with a path, such as /v1, and not contain ?, # or spaces")
    return value


def check_port(url: str) -> None:
    """Raise ValueError if a URL has a port that does not exist."""
    try:
        port = urlsplit(url).port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError("must name a host; a port, if given, must be between 1 and 65535")


def _check_key(value: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[!-~]+", value.get_secret_value()):
        raise ValueError("must be printable ASCII characters without spaces or line breaks")
    return value


Rate = Annotated[str, AfterValidator(_check_rate)]
HttpUrl = Annotated[str, AfterValidator(_check_http_url)]
Key = Annotated[SecretStr, AfterValidator(_check_key)]
