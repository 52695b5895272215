"""Define every setting, and read the settings from the environment and `.env`.

The environment takes precedence over `.env`. `.env.example` lists all settings. No other module
reads them from the environment.
"""

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from config.children.llama_server import LlamaServer
from config.limit_settings import LimitSettings
from config.setting_errors import describe_first
from config.setting_types import (
    MAX_TTL_S,
    ApiKeys,
    ContextTokens,
    ExpandedPath,
    HttpUrl,
    Key,
    MemorySize,
    Origin,
    RedisUrl,
    UpstreamSettings,
)
from config.system.env_file import EnvFileError, find_lines

OPENAI_URL = "https://api.openai.com/v1"
"""Base URL of the upstream if only OPENAI_API_KEY is set."""


class SettingsError(Exception):
    """A setting is invalid; the message names the variable and the values that it accepts."""


class Settings(LimitSettings):
    """The configuration of one server: the variable `PORT` sets the field `port`, and so on."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8-sig",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
    )

    workers: int = Field(1, ge=1, le=256, description="Number of worker processes")
    data_dir: ExpandedPath = Field(
        Path(".data"), description="Directory in which the embedded Redis stores its data"
    )
    redis_url: RedisUrl | None = Field(
        None,
        description="URL of an external Redis, Valkey or Redis Cluster; unset: an embedded Redis",
    )
    redis_maxmemory: MemorySize = Field(
        "",
        description="Maximum memory of the embedded Redis, such as 512mb; "
        "unset: 40 % of the memory",
    )
    openai_api_key: Key | None = Field(
        None,
        description="API key of the upstream; with neither key nor base URL the demo model answers",
    )
    openai_base_url: HttpUrl | None = Field(
        None, description="Base URL of any OpenAI-compatible API"
    )
    chat_model: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Model, or a comma-separated list to choose from; the first is the default",
    )
    model: ExpandedPath | None = Field(
        None, description="GGUF file of a local model, which Holdline runs with llama-server"
    )
    upstreams: Annotated[tuple[UpstreamSettings, ...], NoDecode] = Field(
        (),
        description="Fallback upstreams, in order: "
        "a JSON list of {base_url, api_key, model, name, concurrency}",
    )
    api_keys: ApiKeys = Field(
        {},
        description="Keys of the clients of /v1, as name:key,name:key; "
        "unset: /v1 serves only programs on this machine",
    )
    system_prompt: str = Field("", description="System message at the start of every conversation")
    context_tokens: ContextTokens = Field(
        "auto",
        description="Maximum size of a request without its answer, in tokens; "
        "auto: a part of the stated window",
    )
    max_output_tokens: int | None = Field(
        None,
        ge=1,
        le=10_000_000,
        description="Maximum length of one response, in tokens; unset: the model's own",
    )
    upstream_timeout_s: float = Field(
        120,
        gt=0,
        le=86_400,
        description="Maximum silence of the upstream, in seconds; "
        "comments count only before the answer begins",
    )
    first_token_timeout_s: float = Field(
        300,
        gt=0,
        le=86_400,
        description="Maximum time until the answer begins, in seconds, "
        "while the upstream only sends comments",
    )
    turn_max_s: float = Field(
        3600,
        gt=0,
        le=7 * 86_400,
        description="Maximum time for one answer on one worker, in seconds",
    )
    continue_mode: Literal["auto", "prompt", "prefill"] = Field(
        "auto",
        description="How to continue a partial answer: prompt, prefill, "
        "or auto (by server and model)",
    )
    continue_max: int = Field(
        4, ge=0, le=100, description="Maximum number of continuations of one answer"
    )
    moderation: Literal["off", "input", "output", "both"] = Field(
        "off", description="What a moderation endpoint checks: questions, answers, both, or nothing"
    )
    moderation_base_url: HttpUrl | None = Field(
        None, description="Base URL of the moderation endpoint; unset: OPENAI_BASE_URL"
    )
    moderation_api_key: Key | None = Field(
        None,
        description="API key of the moderation endpoint; "
        "unset: OPENAI_API_KEY, if the base URLs are the same",
    )
    moderation_model: str = Field(
        "", description="Model of the moderation endpoint; unset: the endpoint's own"
    )
    moderation_fail: Literal["closed", "open"] = Field(
        "closed",
        description="What happens to texts that the endpoint cannot check: "
        "closed rejects them, open lets them pass",
    )
    session_idle_s: int = Field(
        90 * 86_400,
        ge=1,
        le=MAX_TTL_S,
        description="Time after which an unused session expires, in seconds",
    )
    session_max_s: int = Field(
        400 * 86_400,
        ge=1,
        le=MAX_TTL_S,
        description="Maximum age of a session, in seconds (browsers cap cookies at 400 days)",
    )
    cors_origins: Annotated[tuple[Origin, ...], NoDecode] = Field(
        (),
        description="Other origins whose pages may use the API, comma-separated, "
        "such as https://app.example",
    )
    cookie_samesite: Literal["lax", "none"] = Field(
        "lax",
        description="none: pages of other sites in CORS_ORIGINS have sessions too; requires https",
    )
    log_keep_s: int = Field(
        3600,
        ge=60,
        le=MAX_TTL_S,
        description="Time for which the log of a finished answer is kept, in seconds",
    )
    lease_s: float = Field(
        3,
        ge=0.5,
        le=60,
        description="Time without a renewal after which a worker loses its turns, in seconds",
    )
    drain_s: float = Field(
        20,
        ge=0,
        le=3600,
        description="Time that a stopping server may take to finish its answers, in seconds",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Minimum level of log messages: debug, info, warning or error"
    )

    @field_validator("cookie_samesite", "log_level", mode="before")
    @classmethod
    def _lowercase(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("chat_model", "cors_origins", mode="before")
    @classmethod
    def _split_names(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(name.strip() for name in value.split(",") if name.strip())

    @field_validator("upstreams", mode="before")
    @classmethod
    def _decode_upstreams(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            upstreams = json.loads(value)
        except (ValueError, RecursionError):
            upstreams = None
        if not isinstance(upstreams, list):
            raise ValueError(
                'must be a JSON list such as [{"base_url": "http://…/v1", "model": "…"}]'
            )
        return upstreams

    @property
    def models(self) -> tuple[str, ...]:
        """The models that clients may choose; the first is the default."""
        return self.chat_model or tuple(other.model for other in self.upstreams[:1]) or ("demo",)

    @property
    def demo(self) -> bool:
        """Whether the built-in demo model answers."""
        return not (self.has_primary_upstream or self.upstreams or self.model)

    @property
    def has_primary_upstream(self) -> bool:
        """Whether OPENAI_API_KEY or OPENAI_BASE_URL is set; that upstream precedes UPSTREAMS."""
        return self.openai_api_key is not None or self.openai_base_url is not None

    @property
    def moderation_url(self) -> str:
        """The base URL of the moderation endpoint."""
        return self.moderation_base_url or self.openai_base_url or OPENAI_URL

    @property
    def moderation_key(self) -> SecretStr | None:
        """The key of the moderation endpoint; OPENAI_API_KEY is sent to no other server."""
        upstream = self.openai_base_url or OPENAI_URL
        is_same = self.moderation_url.rstrip("/") == upstream.rstrip("/")
        return self.moderation_api_key or (self.openai_api_key if is_same else None)

    @property
    def all_upstreams(self) -> tuple[UpstreamSettings, ...]:
        """The upstreams in order; the primary one has model "", which stands for CHAT_MODEL."""
        if not self.has_primary_upstream:
            return self.upstreams
        primary = UpstreamSettings.model_construct(
            base_url=self.openai_base_url or OPENAI_URL, api_key=self.openai_api_key, model=""
        )
        return (primary, *self.upstreams)

    def with_local_model(self, server: LlamaServer) -> "Settings":
        """Return these settings with the llama-server of MODEL, and its slots, as the upstream."""
        upstream = UpstreamSettings(
            base_url=server.base_url,
            api_key=SecretStr(server.api_key),
            model=next(iter(self.chat_model), server.model_name),
            name="llama-server",
            concurrency=max(server.slots, self.workers),
        )
        return self.model_copy(update={"upstreams": (upstream,)})


NAMES = tuple(name.upper() for name in Settings.model_fields)
"""The names of all settings."""


def load(**overrides: object) -> Settings:
    """Read the settings from the environment and `.env`; raises SettingsError, one line long."""
    lines: dict[str, int] = {}
    try:
        lines = find_lines(NAMES)
        settings = Settings(**overrides)  # type: ignore[arg-type]
    except EnvFileError as error:
        raise SettingsError(str(error)) from None
    except ValidationError as error:
        raise SettingsError(describe_first(error, lines)) from None
    for name in ("openai_base_url", "openai_api_key", "upstreams"):
        if settings.model and getattr(settings, name):
            raise SettingsError(f"MODEL and {name.upper()} exclude each other: unset one of them")
    if settings.has_primary_upstream and not settings.chat_model:
        raise SettingsError(
            "CHAT_MODEL is required with OPENAI_API_KEY or OPENAI_BASE_URL: "
            "set it to a model of the upstream, such as gpt-5-mini or llama3.2"
        )
    if settings.moderation != "off" and not (
        settings.moderation_base_url or settings.has_primary_upstream
    ):
        raise SettingsError(
            "MODERATION_BASE_URL is required with MODERATION, "
            "unless OPENAI_API_KEY or OPENAI_BASE_URL is set"
        )
    for upstream in settings.upstreams:
        if upstream.concurrency is not None and upstream.concurrency < settings.workers:
            raise SettingsError(
                f"UPSTREAMS is invalid: concurrency {upstream.concurrency} is less than "
                f"WORKERS ({settings.workers}), and each worker needs one request at a time"
            )
    real_models = [
        name for name in settings.chat_model if not (settings.demo and name.startswith("demo"))
    ]
    if real_models and not settings.has_primary_upstream and not settings.model:
        raise SettingsError(
            "CHAT_MODEL names a real model, but no upstream is configured: "
            "set OPENAI_API_KEY or OPENAI_BASE_URL"
        )
    return settings
