"""Describe each kind of model server: how it continues an answer, and which fields it accepts.

The base URL and the `owned_by` of the models identify the kind. `owned_by` is only a hint, because
gateways repeat the names of other servers. docs/upstreams.md has the sources.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Any
from urllib.parse import urlsplit

MIN_WINDOW, MAX_WINDOW = 256, 10_000_000
"""Bounds of a context window, in tokens; a stated window outside them is ignored."""

_MAX_MODELS = 10_000
"""Models of one list that are remembered; more would only take memory."""


class Prefill(Enum):
    """How a request makes a server continue a final assistant message."""

    NONE = "none"
    """Not possible: the server begins a new message, or its behaviour is unknown."""
    FIELDS = "continue_final_message"
    """By the request fields of vLLM."""
    PREFIX = "prefix"
    """By `prefix: true` in the message."""
    PLAIN = "plain"
    """Without further fields."""


@dataclass(frozen=True, slots=True)
class ServerKind:
    """A kind of server; `limit_field` is the request field for MAX_OUTPUT_TOKENS."""

    name: str
    prefill: Prefill = Prefill.NONE
    limit_field: str = "max_completion_tokens"
    takes_stream_options: bool = True
    repeats_prefix: bool = False
    """Whether its continuation begins with the whole partial answer."""


UNKNOWN = ServerKind("unknown")
_OLLAMA = ServerKind("ollama", Prefill.PLAIN, "max_tokens")
_MISTRAL = ServerKind(
    "mistral", Prefill.PREFIX, "max_tokens", takes_stream_options=False, repeats_prefix=True
)
_DEEPSEEK = ServerKind("deepseek", limit_field="max_tokens")
_DEEPSEEK_BETA = ServerKind("deepseek", Prefill.PREFIX, "max_tokens")

_OWNERS = {
    "llamacpp": ServerKind("llama-server", Prefill.FIELDS, "max_tokens"),
    "vllm": ServerKind("vllm", Prefill.FIELDS),
    "sglang": ServerKind("sglang", Prefill.FIELDS),
    "library": _OLLAMA,
    "me": ServerKind("llama-cpp-python", limit_field="max_tokens"),
    "organization_owner": ServerKind("lm-studio", limit_field="max_tokens"),
}

_GATEWAYS = ("openai.com", "openrouter.ai", "groq.com", "googleapis.com", "azure.com")
"""Hosts whose `owned_by` is ignored, because it may name another server."""


def recognise(base_url: str, owned_by: object = None) -> ServerKind:
    """Return the kind of the server at a base URL; `owned_by` is that of the requested model."""
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    if host == "api.mistral.ai":
        return _MISTRAL
    if host == "api.deepseek.com":
        return _DEEPSEEK_BETA if "beta" in parts.path.split("/") else _DEEPSEEK
    if host == "ollama.com" or parts.port == 11434:
        return _OLLAMA
    if host.endswith(_GATEWAYS) or not isinstance(owned_by, str):
        return UNKNOWN
    return _OWNERS.get(owned_by, UNKNOWN)


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model in the response to `GET /models`; `window` is its context window in tokens."""

    owned_by: str | None = None
    window: int | None = None


def read_models(body: object) -> dict[str, ModelInfo]:
    """Return the models in a response to `GET /models`, which may have any shape, by their ids."""
    listed = body.get("data") if isinstance(body, dict) else body
    found = {}
    for model in listed[:_MAX_MODELS] if isinstance(listed, list) else []:
        if isinstance(model, dict) and isinstance(model.get("id"), str):
            owned_by = model.get("owned_by")
            owned_by = owned_by if isinstance(owned_by, str) else None
            found[model["id"]] = ModelInfo(owned_by, _read_window(model))
    return found


def _read_window(model: dict[str, Any]) -> int | None:
    """Return the smallest window that a model's description states."""
    meta, top = model.get("meta"), model.get("top_provider")
    stated = [
        meta.get("n_ctx") if isinstance(meta, dict) else None,
        top.get("context_length") if isinstance(top, dict) else None,
        *(model.get(name) for name in _WINDOW_FIELDS),
    ]
    windows = [size for size in stated if type(size) is int and MIN_WINDOW <= size <= MAX_WINDOW]
    return min(windows, default=None)


_WINDOW_FIELDS = ("max_model_len", "context_window", "max_context_length", "context_length")
