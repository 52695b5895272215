"""Find the faults of `.env` that its reader would pass over, and check who may read the file."""

import difflib
import io
import logging
import os
import re
import stat
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from dotenv.parser import Binding, parse_stream

logger = logging.getLogger("holdline.env_file")

_PATH = Path(".env")

_NEAR = 0.88
"""A name in `.env` that resembles a setting's this much (difflib's ratio) is a misspelt one."""

_VERY_NEAR = 0.9
"""The same for a variable of the environment, which may belong to another program."""

_ALIASES = {
    "OPENAI_API_BASE": "OPENAI_BASE_URL",
    "OPENAI_API_URL": "OPENAI_BASE_URL",
    "OPENAI_URL": "OPENAI_BASE_URL",
    "OPENAI_KEY": "OPENAI_API_KEY",
}
"""Names that other programs use, or used, for a setting."""

_MAX_COMMON_LETTERS = 5
"""A name of so few letters, or near such a setting, may belong to another program: MODE, PORTS."""

_ASSIGNED_NAME = re.compile(r"\s*(?:export\s+)?([A-Za-z_]\w*)")
_OPENED_QUOTE = re.compile(_ASSIGNED_NAME.pattern + r"\s*=\s*[\"']")
_SINGLE_QUOTED = re.compile(_ASSIGNED_NAME.pattern + r"\s*=\s*'")
_UNBRACED = re.compile(r"\$([A-Za-z_]\w*)(?:/.*)?")
_BRACED = re.compile(r"\$\{([^}:]*)\}")


class EnvFileError(Exception):
    """A line of `.env` would not be taken as it is meant; the message has its number."""


def find_lines(names: Collection[str], path: Path = _PATH) -> dict[str, int]:
    """Return the lines of `.env` that set something, by the names in capitals.

    `names` are those of the settings. Raises EnvFileError for the first line that is not an
    assignment, that misspells or repeats a setting, or whose value names an unset variable. A short
    name may belong to another program, and is no misspelling.
    """
    lines: dict[str, int] = {}
    text = _read(path)
    used = set(_BRACED.findall(text))  # by other lines, so these are no misspelt settings
    for binding in parse_stream(io.StringIO(text, newline="")):
        source = binding.original.string
        line = binding.original.line + _count_lines(source[: len(source) - len(source.lstrip())])
        if binding.error or (binding.key and binding.value is None):
            _reject(path, line, _describe_fault(source, names))
        if binding.key is None:
            continue
        name = binding.key.upper()
        if name in lines and name in names:
            _reject(path, line, f"{name} is set in line {lines[name]} already: remove one of them")
        near = "" if name in names or binding.key in used else _find_nearest(name, names, _NEAR)
        if min(len(name), len(near)) > _MAX_COMMON_LETTERS:
            _reject(path, line, f"{binding.key} is no setting; did you mean {near}?")
        if name in names:
            _check_variables(path, line, binding, lines)
        lines[name] = line
    return lines


def warn_if_exposed(path: Path = _PATH) -> None:
    """Log a warning if every user of the machine may read the file."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if mode & stat.S_IROTH:
        logger.warning("every user of this machine may read .env: run `chmod 600 .env`")


def warn_of_unknown_names(names: Collection[str], path: Path = _PATH) -> None:
    """Log the lines of `.env` that set no setting, and misspelt names in the environment.

    The name in such a line is not logged: it may be a part of a key.
    """
    with suppress(EnvFileError):  # the file has changed since the settings were read
        for name, line in find_lines(names, path).items():
            if name not in names:
                near = _find_nearest(name, names, _NEAR)
                hint = f"; did you mean {near}?" if near else ""
                logger.warning("%s line %d sets no setting, and has no effect%s", path, line, hint)
    for name in os.environ:
        near = _find_nearest(name.upper(), names, _VERY_NEAR)
        if near and name.upper() not in names:
            logger.warning("%s in the environment is no setting; did you mean %s?", name, near)


def _read(path: Path) -> str:
    """Return the text of the file; "" without one."""
    try:
        is_pipe = stat.S_ISFIFO(path.stat().st_mode)  # which would be read once only
        text = "" if is_pipe else path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        if path.is_symlink():
            raise EnvFileError(f"{path} cannot be read: {error.strerror}") from None
        return ""
    except OSError as error:
        raise EnvFileError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = _count_lines(error.object[: error.start].decode("latin-1")) + 1
        raise EnvFileError(f"{path} is not UTF-8 text (line {line})") from None
    if is_pipe:
        raise EnvFileError(f"{path} cannot be read: it is a pipe, not a file")
    if "\0" in text:
        _reject(path, _count_lines(text.partition("\0")[0]) + 1, "a NUL character is no text")
    return text


def _describe_fault(text: str, names: Collection[str]) -> str:
    """Return the fault of a malformed line. The line may hold a key: never quote it."""
    found = _ASSIGNED_NAME.match(text)
    near = found and _find_nearest(found[1].upper(), names, _NEAR)
    if _OPENED_QUOTE.match(text):
        return (
            f"the value of {near or 'this name'} has a quote that is not closed, or text after it"
        )
    return f"this is not an assignment: write {near or 'NAME'}=value"


def _check_variables(path: Path, line: int, binding: Binding, before: Collection[str]) -> None:
    """Reject `$NAME`, which is not replaced, and `${NAME}` of a variable that is not set.

    The value may be a key: never quote it.
    """
    value = binding.value or ""
    if _UNBRACED.fullmatch(value) and not _SINGLE_QUOTED.match(binding.original.string):
        advice = "write ${NAME} for a variable, or put the value in single quotes"
        _reject(path, line, f"the value of {binding.key} begins with $: {advice}")
    for name in _BRACED.findall(value):
        if name not in os.environ and name.upper() not in before:
            _reject(path, line, f"the value of {binding.key} names a variable that is not set")


def _find_nearest(name: str, names: Collection[str], cutoff: float) -> str:
    """Return the setting that a name misspells; "" if there is none.

    A further key, such as OPENAI_API_KEY_2, misspells nothing.
    """
    if name in _ALIASES:
        return _ALIASES[name]
    near = difflib.get_close_matches(name, names, n=1, cutoff=cutoff)
    swapped = [one for one in names if sorted(one) == sorted(name)]
    plural = [one for one in names if _to_singular(one) == _to_singular(name)]
    without_unit = [one for one in names if one == f"{name}_S"]
    found = next(iter([*swapped, *plural, *without_unit, *near]), "")
    return "" if name.startswith(f"{found}_") else found


def _to_singular(name: str) -> str:
    return re.sub(r"S$", "", re.sub(r"IES$", "Y", name))


def _count_lines(text: str) -> int:
    return len(re.findall(r"\r\n|\r|\n", text))


def _reject(path: Path, line: int, fault: str) -> NoReturn:
    raise EnvFileError(f"{path} line {line}: {fault}")
