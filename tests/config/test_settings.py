"""The settings: what is documented is what there is, and a wrong value is named."""

import asyncio
import re
import sys
from pathlib import Path

import pytest

from config.settings import Settings, SettingsError, load
from tests.processes import PATIENCE_S, ROOT


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting but the test's: none of the environment's, none of a .env in the checkout."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def test_the_example_lists_every_setting_with_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / ".env.example").read_text()
    listed = dict(re.findall(r"^# ([A-Z_]+)=(.*)$", text, re.MULTILINE))
    assert list(listed) == [name.upper() for name in Settings.model_fields]
    defaults = load()
    for name, value in listed.items():
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
        ("CONTEXT_TOKENS", "10"),
        ("CONTEXT_TOKENS", "16k"),
        ("UPSTREAM_TIMEOUT_S", "0"),
        ("MESSAGE_MAX", "0"),
        ("RATE_LIMIT", "60"),
        ("RATE_LIMIT", "60/fortnight"),
        ("RATE_LIMIT", "0/minute"),
        ("SESSION_IDLE_S", "never"),
        ("SESSION_MAX_S", "0"),
        ("LEASE_S", "0"),
        ("LOG_LEVEL", "loud"),
    ],
)
def test_a_wrong_value_is_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load()
    assert str(caught.value).startswith(f"{name} ")
    assert "\n" not in str(caught.value)


def test_a_real_model_needs_a_name_and_a_name_needs_a_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with pytest.raises(SettingsError, match="CHAT_MODEL must name"):
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


def test_a_file_of_settings_is_read_and_the_environment_wins(
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


def test_an_empty_value_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = load()
    for name in Settings.model_fields:
        monkeypatch.setenv(name.upper(), "")
    assert load() == defaults


@pytest.mark.parametrize(
    ("limit", "rate"),
    [("60/minute", (60, 60)), ("1/second", (1, 1)), ("9/hour", (9, 3600)), ("off", (0, 1))],
)
def test_a_rate_is_a_number_and_a_window(
    monkeypatch: pytest.MonkeyPatch, limit: str, rate: tuple[int, int]
) -> None:
    monkeypatch.setenv("RATE_LIMIT", limit)
    assert load().rate == rate


@pytest.mark.parametrize(
    ("name", "value"),
    [("PORT", "eighty"), ("OPENAI_BASE_URL", "sk-secret-in-the-wrong-place"), ("LEASE_S", "x")],
)
async def test_the_server_does_not_start_and_says_why(
    tmp_path: Path, name: str, value: str
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(ROOT / "server.py"),
        cwd=tmp_path, env={name: value}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(PATIENCE_S):
        said, complaint = await process.communicate()
    assert process.returncode == 1
    assert said == b""
    assert complaint.decode().startswith(f"holdline: {name} is wrong: ")
    assert complaint.count(b"\n") == 1
    assert value.encode() not in complaint
