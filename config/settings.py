"""Every setting: its name, type, default and reason; read from the environment here and nowhere else.

A variable in the environment wins over the same one in `.env`. `.env.example` lists them all.
"""

import json
import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class SettingsError(Exception):
    """A setting is wrong; the message names the variable and says what it takes."""


def _rate(value: str) -> str:
    if value != "off" and not re.fullmatch(r"[1-9]\d{0,5}/(second|minute|hour)", value):
        raise ValueError("must look like 60/minute (or /second, /hour), or be off")
    return value


def _http(value: str) -> str:
    _port(value)
    if not re.match(r"https?://[^/]", value):
        raise ValueError("must begin with http:// or https:// and name a host")
    if re.search(r"[?#\s]", value):
        raise ValueError("must end with a path, such as /v1, without ? or #")
    return value


def _port(url: str) -> None:
    try:
        port = urlsplit(url).port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError("must name a host, and after it a port from 1 to 65535 or none")


def _key(value: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[!-~]+", value.get_secret_value()):
        raise ValueError("must be ASCII characters without spaces or line ends")
    return value


Key = Annotated[SecretStr, AfterValidator(_key)]


class UpstreamSettings(BaseModel, extra="forbid", frozen=True):
    """One of UPSTREAMS."""

    base_url: Annotated[str, AfterValidator(_http)]
    api_key: Key | None = None
    model: str = Field(min_length=1)


class Settings(BaseSettings):
    """The whole configuration of one server; names in capitals are the variables."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
    )

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for every interface")
    port: int = Field(
        8000, ge=0, le=65535, description="Port to listen on; 0 lets the system choose"
    )
    workers: int = Field(1, ge=1, le=256, description="Worker processes")
    data_dir: Path = Field(Path(".data"), description="Where the private Redis keeps its data")
    redis_url: str | None = Field(
        None,
        description="Your own Redis, Valkey or Redis Cluster; unset: a private one in DATA_DIR",
    )
    openai_api_key: Key | None = Field(
        None,
        description="Key for the upstream; with neither key nor base URL the demo model answers",
    )
    openai_base_url: Annotated[str, AfterValidator(_http)] | None = Field(
        None, description="Base URL of any OpenAI-compatible API"
    )
    chat_model: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Model to ask; a comma-separated list lets clients choose, the first is the default",
    )
    upstreams: Annotated[tuple[UpstreamSettings, ...], NoDecode] = Field(
        (),
        description="More upstreams to fail over to, in order: a JSON list of base_url, api_key and model",
    )
    system_prompt: str = Field("", description="System message that every conversation begins with")
    context_tokens: int = Field(
        16_000, ge=256, le=10_000_000, description="Budget of history sent upstream, in tokens"
    )
    upstream_timeout_s: float = Field(
        120, gt=0, description="Longest silence of the upstream before a turn fails, in seconds"
    )
    continue_mode: Literal["prompt", "prefill"] = Field(
        "prompt",
        description="How an answer that broke off is continued: asked to go on, or prefill (vLLM and others)",
    )
    continue_max: int = Field(
        4, ge=0, le=100, description="How often one answer is continued at the most"
    )
    message_max: int = Field(32_000, ge=1, description="Longest question, in characters")
    rate_limit: Annotated[str, AfterValidator(_rate)] = Field(
        "60/minute", description="New turns a session may begin, such as 60/minute, or off"
    )
    session_idle_s: int = Field(
        90 * 86_400, ge=1, description="A session unused for this long ends, in seconds"
    )
    session_max_s: int = Field(
        400 * 86_400,
        ge=1,
        description="A session ends at this age, in seconds (browsers cap cookies at 400 days)",
    )
    lease_s: float = Field(
        3, ge=0.5, le=60, description="A worker silent for this long has lost its turns, in seconds"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="What is logged"
    )

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("chat_model", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(name.strip() for name in value.split(",") if name.strip())

    @field_validator("redis_url")
    @classmethod
    def _redis_scheme(cls, value: str | None) -> str | None:
        if value and not re.match(r"(rediss?(\+cluster)?|unix)://", value):
            raise ValueError(
                "must begin with redis://, rediss:// or unix://, for a Cluster redis+cluster:// or rediss+cluster://"
            )
        scheme, _, rest = (value or "").partition("://")
        if scheme not in ("", "unix"):
            for node in rest.split(",") if scheme.endswith("+cluster") else [rest]:
                _port(f"//{node}")
        return value

    @field_validator("upstreams", mode="before")
    @classmethod
    def _decode(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            found = json.loads(value)
        except ValueError:
            found = None
        if not isinstance(found, list):
            raise ValueError(
                'must be a JSON list such as [{"base_url": "http://…/v1", "model": "…"}]'
            )
        return found

    @property
    def rate(self) -> tuple[int, int]:
        """RATE_LIMIT as a number of turns and a window in seconds; 0 turns where it is off."""
        if self.rate_limit == "off":
            return 0, 1
        count, _, unit = self.rate_limit.partition("/")
        return int(count), {"second": 1, "minute": 60, "hour": 3600}[unit]

    @property
    def models(self) -> tuple[str, ...]:
        """The models that a client may choose from; the first is the default."""
        return self.chat_model or tuple(other.model for other in self.upstreams[:1]) or ("demo",)

    @property
    def demo(self) -> bool:
        """Whether the built-in demo model answers."""
        return not self.has_main and not self.upstreams

    @property
    def has_main(self) -> bool:
        """Whether OPENAI_API_KEY or OPENAI_BASE_URL name an upstream, which is asked before UPSTREAMS."""
        return self.openai_api_key is not None or self.openai_base_url is not None


def load(**overrides: object) -> Settings:
    """Read the settings from the environment and `.env`; raises SettingsError with one line."""
    try:
        settings = Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        raise SettingsError(_first_fault(error)) from None
    except UnicodeDecodeError:
        raise SettingsError(".env is not UTF-8 text") from None
    if settings.has_main and not settings.chat_model:
        raise SettingsError(
            "CHAT_MODEL must name the upstream's model, such as gpt-5-mini or llama3.2"
        )
    named = [
        name for name in settings.chat_model if not (settings.demo and name.startswith("demo"))
    ]
    if named and not settings.has_main:
        raise SettingsError(
            "CHAT_MODEL names a real model, but neither OPENAI_API_KEY nor OPENAI_BASE_URL says where it is"
        )
    return settings


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_url=False, include_input=False)[0]
    name = " ".join([str(fault["loc"][0]).upper(), *map(str, fault["loc"][1:])])
    words = fault["msg"].removeprefix("Value error, ")
    return f"{name} is wrong: {words[0].lower()}{words[1:]}"
