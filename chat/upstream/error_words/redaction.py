"""Remove keys, addresses and markup from an upstream's words. Pure."""

import ipaddress
import re
from urllib.parse import urlsplit

from chat.upstream.error_words.message import clean

MAX_WORDS_CHARS = 300
"""Maximum length of an upstream's own words, in characters, when they are shown."""
_MAX_INPUT_CHARS = 4000

_SHORT_KEY = 8
"""A key of fewer characters is a placeholder such as "none": only the whole word is replaced."""

_FLAGS = re.ASCII | re.IGNORECASE  # a Chinese sentence has no spaces around an address
_URL = re.compile(
    r"(?<![\w+.-])(?:[a-z][a-z0-9+.-]{1,20}://|www\.)"
    r"[^\s<>\"'`{}\u3000-\u9fff\uff00-\uffef]*[^\s<>\"'`{}()\[\].,;:!?\u3000-\u9fff\uff00-\uffef]",
    _FLAGS,
)
_ACCOUNT = re.compile(r"[\w.+%:!#$&*/=?~-]{1,128}@[\w.-]{0,253}\w(?::\d+)?", _FLAGS)
_PROSE = (
    r"(?!(?:tokens?|auth\w*|scheme|credentials?|header|realm|and|or|is|was|not|must|keys?|error"
    r"|format|access|plan|tier|usage)\b)"
)
_SECRETS = [
    re.compile(rf"\b(?:bearer|basic)[\s:=]+{_PROSE}[\w.~+/*=-]{{3,}}[\w*=]", _FLAGS),
    re.compile(
        r"\b(?:sk|pk|rk|key)[-_](?!(?:value|based|pair|word|only)s?\b)[\w.*-]{3,}[\w*]", _FLAGS
    ),
    re.compile(
        r"\b(?:(?:gsk|hf|r8|fw|tgp|gh[pousr]|github_pat|glpat|xai|nvapi|pplx|csk|xox[a-z])[-_]"
        r"|AIza|AKIA|eyJ|ya29\.)[\w.*-]{5,}[\w*]",
        re.ASCII,
    ),
    re.compile(r"(?<![\w-])[\w-]*+\*{3,}[\w*-]*", re.ASCII),
    re.compile(
        r"(?<!\w)(?=[A-Za-z_]{0,99}\d)(?=\d{0,99}[A-Za-z_])[A-Za-z0-9_]{32,}(?:\.\w{8,})?",
        re.ASCII,
    ),
]
"""Forms of keys, including masked ones; the last pattern matches any long random text."""
_PATH = re.compile(r"(?<![\w:/.<])(?:~|[A-Za-z]:)?(?:[/\\][\w.@+-]+){2,}[/\\]?", re.ASCII)
_ORGANISATION = re.compile(r"\b(?:org|proj|acct)[-_][A-Za-z0-9]{8,}|\barn:[\w:/.-]+", re.ASCII)
_LABELLED_SECRET = re.compile(
    r"(?P<label>(?<![a-z])(?:key|token|secret|password)(?: provided| given)?"
    r"[\"']?\s?[:=]?\s?[\"']?)"
    r"(?=[^\s,;]{0,99}[a-z])(?=[^\s,;]{0,99}[\d*])[\w.*~+/=-]{7,}[\w*=]",
    _FLAGS,
)
_IP = re.compile(
    r"\[[\da-f:.]{2,45}(?:%\w+)?\](?::\d+)?"
    r"|(?<![\w.:])(?:\d{1,3}\.){3}\d{1,3}(?::\d+|/\d+)?(?![\w.]\w|\w)"
    r"|(?<![\w:.])(?=[\da-f.]{0,45}:)[\da-f:.]{2,45}(?:%\w+)?(?!\w)",
    _FLAGS,
)
_HOST_WITH_PORT = re.compile(
    r"(?<![\w.:/-])(?=[\w.-]{0,252}[a-z])(?P<host>[a-z0-9][\w.-]{0,252}):\d{2,5}(?![\w.]\w|\w)",
    _FLAGS,
)
_LABELS = re.compile(
    r"(?:max|min|n|num|total|error|code|status|limit|tokens?|requested|line|size|length|used|usage"
    r"|current|remaining|http|port|column|value|id|count|context|window|input|output|prompt"
    r"|completion|messages?|year|rpm|tpm|[a-z]+_(?:tokens?|length|size|len|limit|ctx))",
    re.IGNORECASE,
)
"""Words before a colon and a number that are not a host: `limit:8192` is not an address."""
_HOST = re.compile(
    r"(?<![\w.@-])(?:[a-z0-9][a-z0-9-]{0,62}\.){1,8}(?:com|net|org|io|ai|dev|cn|local|internal|lan"
    r"|svc|cluster|localdomain|home|corp|intranet|private|invalid|test|example|app|cloud|co|de|eu"
    r"|uk|jp|kr|ru|fr|us|me|xyz|tech|gov|edu)(?![\w-]|\.\w)",
    re.ASCII,
)

_PORT = re.compile(r"(?P<label>\bport\b[\s:='\"]{0,3})\d{2,5}(?!\w)", _FLAGS)
_BEFORE_HOST = (
    r"(?P<label>\b(?:host(?:name)?|server|address|lookup|resolve|reach|contact"
    r"|connect(?:ion)? to)\b[\s:='\"(]{0,4})"
)


def sanitise(text: str, key: str, base_url: str = "") -> str:
    """Return at most 300 characters on one line, with `…` for every key and address.

    `key` is the upstream's key, `base_url` its address, whose host may be any word. Ordinary prose,
    numbers, versions and times are kept.
    """
    text = clean(text)
    if len(text) > _MAX_INPUT_CHARS:
        text = text[:_MAX_INPUT_CHARS].rpartition(" ")[0] or text[:_MAX_INPUT_CHARS]
    if key := key.strip():
        text = _match_key(key).sub("…", text)
    text = _ACCOUNT.sub("…", _URL.sub("…", text.replace("\\/", "/")))
    text = _ORGANISATION.sub("…", _PATH.sub("…", text))
    for secret in _SECRETS:
        text = secret.sub("…", text)
    text = _LABELLED_SECRET.sub(r"\g<label>…", text)
    text = _IP.sub(_replace_ip, text)
    text = _HOST.sub("…", _HOST_WITH_PORT.sub(_replace_host, text))
    text = _PORT.sub(r"\g<label>…", _hide_names(text, base_url))
    text = re.sub(r"…(?:[\s/]*…)+", "…", text)
    if not any(map(str.isalpha, text)):
        return ""
    return text if len(text) <= MAX_WORDS_CHARS else text[: MAX_WORDS_CHARS - 1] + "…"


def _hide_names(text: str, base_url: str) -> str:
    """Replace the parts of an address that no general pattern finds: `gpu-7`, or a short path.

    A host that is an ordinary word (`ollama`, `model`) is replaced only after a word like `host`.
    """
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    for name in (host, host.partition(".")[0], *parts.path.split("/")):
        if len(name) > 3 and re.search(r"[^\W\d]", name) and re.search(r"[\d.-]", name):
            text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "…", text, flags=re.IGNORECASE)
    if host:
        word = re.compile(rf"{_BEFORE_HOST}{re.escape(host)}(?!\w)", _FLAGS)
        text = word.sub(r"\g<label>…", text)
    return text


def _match_key(key: str) -> re.Pattern[str]:
    """Return a pattern for the key, and for text that begins like a long key."""
    if len(key) < _SHORT_KEY:
        return re.compile(rf"(?<!\w){re.escape(key)}(?!\w)", re.ASCII)
    if len(key) < 2 * _SHORT_KEY:
        return re.compile(re.escape(key), re.IGNORECASE)
    return re.compile(rf"{re.escape(key)}|{re.escape(key[:_SHORT_KEY])}[\w*-]*", _FLAGS)


def _replace_ip(match: re.Match[str]) -> str:
    text = match[0]
    address = text.rstrip(".:") + "::" * text.endswith("::")
    host = re.sub(r"%\w+", "", address)
    if text.startswith("["):
        host = host[1:].partition("]")[0]
    elif "." in host.partition(":")[0]:
        host = re.split("[:/]", host)[0]
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return text
    return f"…{text[len(address) :]}" if host.strip(":") else text


def _replace_host(match: re.Match[str]) -> str:
    host = match["host"]
    if _LABELS.fullmatch(host):
        return match[0]
    has_domain = re.search(r"\.[A-Za-z][\w-]*$", host)
    port = match[0].rpartition(":")[2]
    is_host = has_domain or host.lower() == "localhost" or len(port) >= 4
    return "…" if is_host else match[0]
