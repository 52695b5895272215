"""The settings: defaults, precedence, and errors that name the variable."""

import asyncio
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from config.settings import Settings, SettingsError, load
from tests.fake_upstream import ScriptedUpstream
from tests.processes import PATIENCE_S, ROOT, holdline
from tests.streams import ask


@pytest.fixture(autouse=True)
def _isolate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide the settings of the environment and of a .env in the checkout."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def test_the_env_example_lists_every_setting_with_its_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = (ROOT / ".env.example").read_text()
    examples = dict(re.findall(r"^# ([A-Z_]+)=(.*)$", text, re.MULTILINE))
    assert list(examples) == [name.upper() for name in Settings.model_fields]
    defaults = load()
    for name, value in examples.items():
        monkeypatch.setenv(name, value)
    assert load() == defaults
    for field in Settings.model_fields.values():
        assert f"# {field.description}.\n" in text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "eighty"),
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("WORKERS", "0"),
        ("REDIS_URL", "localhost:6379"),
        ("REDIS_URL", "redis://:secret@localhost:port/0"),
        ("REDIS_URL", "redis+cluster://localhost:7000,localhost:70000"),
        ("OPENAI_BASE_URL", "http://[bad/v1"),
        ("OPENAI_BASE_URL", "http://127.0.0.1:99999/v1"),
        ("OPENAI_BASE_URL", "http://127.0.0.1/v1?api-version=1"),
        ("OPENAI_API_KEY", "sk-“quoted”"),
        ("OPENAI_API_KEY", "sk-1\r\nX-Injected: 1"),
        ("UPSTREAMS", "http://127.0.0.1:8080/v1"),
        ("UPSTREAMS", "{}"),
        ("UPSTREAMS", '[{"base_url": "http://127.0.0.1:8080/v1"}]'),
        ("UPSTREAMS", '[{"base_url": "127.0.0.1:8080", "model": "m"}]'),
        ("UPSTREAMS", '[{"base_url": "http://127.0.0.1:8080/v1", "model": "m", "key": "secret"}]'),
        ("OPENAI_BASE_URL", "api.example.com/v1"),
        ("OPENAI_BASE_URL", "http://"),
        ("CONTINUE_MODE", "hope"),
        ("CONTINUE_MAX", "-1"),
        ("DRAIN_S", "-1"),
        ("MODERATION", "everything"),
        ("MODERATION_BASE_URL", "api.example.com/v1"),
        ("MODERATION_FAIL", "maybe"),
        ("DRAIN_S", "3601"),
        ("CONTEXT_TOKENS", "10"),
        ("CONTEXT_TOKENS", "16k"),
        ("UPSTREAM_TIMEOUT_S", "0"),
        ("MESSAGE_MAX", "0"),
        ("SYSTEM_MAX", "0"),
        ("OWNER_MAX_BYTES", "0"),
        ("OWNER_MAX_BYTES", "64mb"),
        ("REDIS_MAXMEMORY", "half"),
        ("REDIS_MAXMEMORY", "-1"),
        ("REDIS_MAXMEMORY", "1.5gb"),
        ("REDIS_MAXMEMORY", "1 gb"),
        ("RATE_LIMIT", "60"),
        ("RATE_LIMIT", "60/fortnight"),
        ("RATE_LIMIT", "0/minute"),
        ("RATE_LIMIT_ADDRESS", "600"),
        ("TURNS_MAX", "4"),
        ("TURNS_MAX", "4,40"),
        ("TURNS_MAX", "0,40,400"),
        ("TURNS_MAX", "4,40,40000"),
        ("SESSION_IDLE_S", "never"),
        ("SESSION_MAX_S", "0"),
        ("BASE_PATH", "chat"),
        ("BASE_PATH", "https://example.com/chat"),
        ("BASE_PATH", "//example.com"),
        ("BASE_PATH", "/a//b"),
        ("BASE_PATH", "/../chat"),
        ("BASE_PATH", "/chat?x"),
        ("BASE_PATH", "/a b"),
        ("BASE_PATH", "/v1"),
        ("BASE_PATH", "/api/chat"),
        ("API_KEYS", ","),
        ("API_KEYS", "0123456789abcdef"),
        ("API_KEYS", "name:short"),
        ("API_KEYS", "a b:0123456789abcdef"),
        ("API_KEYS", "a:0123456789abcdef,a:0123456789abcdeg"),
        ("API_KEYS", "a:0123456789abcdef,b:0123456789abcdef"),
        ("CORS_ORIGINS", "*"),
        ("CORS_ORIGINS", "null"),
        ("CORS_ORIGINS", "app.example"),
        ("CORS_ORIGINS", "https://"),
        ("CORS_ORIGINS", "https://*.app.example"),
        ("CORS_ORIGINS", "https://app.example/"),
        ("CORS_ORIGINS", "https://app.example/page"),
        ("CORS_ORIGINS", "https://app.example, https://user@other.example"),
        ("CORS_ORIGINS", "https://app.example:0"),
        ("CORS_ORIGINS", "https://app.example:65536"),
        ("CORS_ORIGINS", "https://bücher.example"),
        ("CORS_ORIGINS", "file://"),
        ("COOKIE_SAMESITE", "strict"),
        *(
            ("ALLOWED_HOSTS", value)
            for value in (
                "*",
                "https://chat.example",
                "chat.example:443",
                "chat.example/chat",
                "a b",
                ".chat.example",
                "bücher.example",
                "[::1",
                "chat..example",
                "a" * 254,
            )
        ),
        ("TRUSTED_PROXIES", "proxy.example"),
        ("TRUSTED_PROXIES", "10.0.0.1/8"),
        ("TRUSTED_PROXIES", "10.0.0.0/33"),
        ("TRUSTED_PROXIES", "127.0.0.1;10.0.0.1"),
        ("TRUSTED_PROXIES", "*"),
        ("TRUSTED_PROXIES", "none,10.0.0.1"),
        ("CONNECTIONS_MAX", "100"),
        ("CONNECTIONS_MAX", "0,100"),
        ("CONNECTIONS_MAX", "100/200"),
        ("CONNECTIONS_MAX", "none"),
        ("LEASE_S", "0"),
        *(
            (name, value)
            for name in (
                "UPSTREAM_TIMEOUT_S",
                "FIRST_TOKEN_TIMEOUT_S",
                "TURN_MAX_S",
                "SESSION_IDLE_S",
                "SESSION_MAX_S",
                "LOG_KEEP_S",
                "LEASE_S",
                "DRAIN_S",
                "MESSAGE_MAX",
                "SYSTEM_MAX",
                "OWNER_MAX_BYTES",
                "MAX_OUTPUT_TOKENS",
                "CONTEXT_TOKENS",
                "CONTINUE_MAX",
            )
            for value in ("9" * 20, "-1", "nan", "inf", "-inf", "1e400", "9" * 5000, "1h", "0x10")
        ),
        ("HOST", "*"),
        ("HOST", "http://localhost"),
        ("HOST", "[::1]"),
        ("DATA_DIR", "$HOME/x"),
        ("DATA_DIR", "~no-user-of-this-name"),
        ("REDIS_MAXMEMORY", "512"),
        ("REDIS_MAXMEMORY", "9" * 18 + "gb"),
        ("UPSTREAMS", "[" * 100_000),
        ("LOG_LEVEL", "loud"),
    ],
)
def test_an_invalid_value_raises_a_one_line_error_that_names_the_setting(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load()
    assert str(caught.value).startswith(f"{name} ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", ["127.0.0.0/8", "::1/128"]),
        ("none", []),
        (" None ", []),
        ("10.0.0.5, 192.0.2.0/24,", ["10.0.0.5/32", "192.0.2.0/24"]),
    ],
)
def test_trusted_proxies_are_networks_or_none(
    monkeypatch: pytest.MonkeyPatch, value: str, expected: list[str]
) -> None:
    monkeypatch.setenv("TRUSTED_PROXIES", value)
    assert [str(network) for network in load().trusted_proxies] == expected


def test_an_upstream_requires_a_model_and_a_model_requires_an_upstream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with pytest.raises(SettingsError, match="CHAT_MODEL is required"):
        load()
    monkeypatch.setenv("CHAT_MODEL", "gpt-5-mini, gpt-5 ,")
    assert load().chat_model == ("gpt-5-mini", "gpt-5")
    assert not load().demo
    assert "sk-secret" not in repr(load())
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(SettingsError, match="CHAT_MODEL names a real model"):
        load()
    monkeypatch.setenv("CHAT_MODEL", "demo,demo-length")
    assert load().demo


def test_moderation_requires_an_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODERATION", "both")
    with pytest.raises(SettingsError, match="MODERATION_BASE_URL is required"):
        load()
    monkeypatch.setenv("MODERATION_BASE_URL", "https://api.example.com/v1")
    assert load().moderation_url == "https://api.example.com/v1"


@pytest.mark.parametrize(
    ("model_url", "endpoint_url", "key", "sent"),
    [
        (None, None, None, "model-key"),
        (None, "https://api.openai.com/v1/", None, "model-key"),
        ("http://127.0.0.1:8001/v1", None, None, "model-key"),
        ("http://127.0.0.1:8001/v1", "http://127.0.0.1:8001/v1", None, "model-key"),
        ("http://127.0.0.1:8001/v1", "https://api.openai.com/v1", None, None),
        ("http://127.0.0.1:8001/v1", "http://127.0.0.1:8002/v1", None, None),
        (None, "https://api.openai.com.example.com/v1", None, None),
        (None, "http://api.openai.com/v1", None, None),
        (None, None, "its-key", "its-key"),
    ],
)
def test_the_key_of_the_model_is_used_for_the_same_base_url_only(
    monkeypatch: pytest.MonkeyPatch,
    model_url: str | None,
    endpoint_url: str | None,
    key: str | None,
    sent: str | None,
) -> None:
    values = {
        "OPENAI_API_KEY": "model-key",
        "OPENAI_BASE_URL": model_url,
        "CHAT_MODEL": "m",
        "MODERATION": "both",
        "MODERATION_BASE_URL": endpoint_url,
        "MODERATION_API_KEY": key,
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value or "")
    found = load().moderation_key
    assert (found and found.get_secret_value()) == sent


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OPENAI_BASE_URL", "http://127.0.0.1:8080/v1"),
        ("OPENAI_API_KEY", "sk-secret"),
        ("UPSTREAMS", '[{"base_url": "http://127.0.0.1:8080/v1", "model": "m"}]'),
    ],
)
def test_a_local_model_excludes_other_upstreams(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv("MODEL", "model.gguf")
    assert not load().demo
    monkeypatch.setenv(name, value)
    monkeypatch.setenv("CHAT_MODEL", "m")
    with pytest.raises(SettingsError, match=f"^MODEL and {name} exclude each other: unset one"):
        load()


@pytest.mark.parametrize(("workers", "slots", "concurrency"), [(1, 2, 2), (4, 2, 4)])
def test_the_slots_of_a_local_model_limit_its_requests(
    monkeypatch: pytest.MonkeyPatch, workers: int, slots: int, concurrency: int
) -> None:
    monkeypatch.setenv("MODEL", "model.gguf")
    monkeypatch.setenv("WORKERS", str(workers))
    server: Any = SimpleNamespace(
        base_url="http://127.0.0.1:1/v1", api_key="key", model_name="model", slots=slots
    )
    settings = load().with_local_model(server)
    (upstream,) = settings.all_upstreams
    assert (upstream.base_url, upstream.concurrency) == ("http://127.0.0.1:1/v1", concurrency)
    assert settings.models == ("model",)


def test_the_environment_takes_precedence_over_the_env_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text(
        "PORT=1234\nSYSTEM_PROMPT=说中文\nLOG_LEVEL=DEBUG\nUNRELATED=1\n", encoding="utf-8"
    )
    monkeypatch.setenv("PORT", "4321")
    settings = load()
    assert (settings.port, settings.system_prompt, settings.log_level) == (4321, "说中文", "debug")
    (tmp_path / ".env").write_bytes(b"SYSTEM_PROMPT=\xff\n")
    with pytest.raises(SettingsError, match=r"\.env is not UTF-8"):
        load()


def test_an_empty_value_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = load()
    for name in Settings.model_fields:
        monkeypatch.setenv(name.upper(), "")
    assert load() == defaults


def test_origins_and_the_base_path_are_normalised(monkeypatch: pytest.MonkeyPatch) -> None:
    origins = "https://APP.example:443,http://app.example:80, http://[::1]:3000 ,app://-,"
    monkeypatch.setenv("CORS_ORIGINS", origins)
    monkeypatch.setenv("BASE_PATH", "/tools/chat/")
    monkeypatch.setenv("COOKIE_SAMESITE", "None")
    settings = load()
    assert settings.cors_origins == (
        "https://app.example",
        "http://app.example",
        "http://[::1]:3000",
        "app://-",
    )
    assert (settings.base_path, settings.cookie_samesite) == ("/tools/chat", "none")
    monkeypatch.setenv("BASE_PATH", "/")
    assert load().base_path == ""


@pytest.mark.parametrize(
    ("limit", "rate"),
    [("60/minute", (60, 60)), ("1/second", (1, 1)), ("9/hour", (9, 3600)), ("off", (0, 1))],
)
def test_a_rate_limit_is_parsed_into_turns_and_a_window(
    monkeypatch: pytest.MonkeyPatch, limit: str, rate: tuple[int, int]
) -> None:
    monkeypatch.setenv("RATE_LIMIT", limit)
    monkeypatch.setenv("RATE_LIMIT_ADDRESS", limit)
    assert (load().rate, load().address_rate) == (rate, rate)


@pytest.mark.parametrize(
    ("text", "limits"), [("off", (0, 0, 0)), ("4,40,400", (4, 40, 400)), ("1,2,3", (1, 2, 3))]
)
def test_the_maximum_of_running_turns_has_three_parts(
    monkeypatch: pytest.MonkeyPatch, text: str, limits: tuple[int, int, int]
) -> None:
    monkeypatch.setenv("TURNS_MAX", text)
    assert load().turn_limits == limits


async def test_a_server_with_the_largest_numbers_answers(
    upstream: ScriptedUpstream, question: str
) -> None:
    largest = {
        name.upper(): str(constraint.le)
        for name, field in Settings.model_fields.items()
        for constraint in field.metadata
        if hasattr(constraint, "le") and name not in ("port", "workers", "drain_s")
    }
    assert len(largest) >= 12
    model = {"OPENAI_BASE_URL": upstream.base_url, "CHAT_MODEL": "m", "CONTEXT_TOKENS": "10000000"}
    async with (
        holdline(**model | largest) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        events = await ask(client, upstream, question, "answered")
        assert (events[-1].event, events[-1].data) == ("end", "answered")
        for path in ("/", "/api/conversations/"):
            assert (await client.get(path)).status_code == 200
        assert "ERROR" not in server.read_log()


@pytest.mark.parametrize(
    ("name", "value"),
    [("PORT", "eighty"), ("OPENAI_BASE_URL", "sk-secret-in-the-wrong-place"), ("LEASE_S", "x")],
)
async def test_a_server_with_an_invalid_setting_exits_with_a_one_line_error(
    tmp_path: Path, name: str, value: str
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "server.py"),
        cwd=tmp_path,
        env={name: value},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE_S):
        stdout, stderr = await process.communicate()
    assert process.returncode == 1
    assert stdout == b""
    assert stderr.decode().startswith(f"holdline: {name} is invalid: ")
    assert stderr.count(b"\n") == 1
    assert value.encode() not in stderr
