"""The faults of `.env`: each is one line that names the file, the line and the nearest setting."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from config.settings import NAMES, SettingsError, load
from config.system.env_file import warn_if_exposed, warn_of_unknown_names


@pytest.fixture(autouse=True)
def _isolate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Use a `.env` of the test, and no settings of the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    for name in (*NAMES, "UNSET"):
        monkeypatch.delenv(name, raising=False)


def write(text: str | bytes) -> None:
    Path(".env").write_bytes(text if isinstance(text, bytes) else text.encode())


SHORT = {"MODE": "MODEL", "HOSTS": "HOST", "PORTS": "PORT", "MODELS": "MODEL", "PROT": "PORT",
         "DRAIN": "DRAIN_S"}  # fmt: skip
"""Names that other programs use, or that misspell a setting: a warning names the setting."""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("PORT: 23664", ".env line 1: this is not an assignment: write PORT=value"),
        ("\n\r\n# a comment\nPORT 23664", ".env line 4: this is not an assignment: write PORT="),
        ("PORT", ".env line 1: this is not an assignment: write PORT=value"),
        ("set PORT=1", ".env line 1: this is not an assignment: write NAME=value"),
        ("OPENAI-API-KEY sk-secret", ".env line 1: this is not an assignment: write "),
        ("sk-secret", ".env line 1: this is not an assignment: write NAME=value"),
        (
            'PORT=1\nHOST="127.0.0.1',
            ".env line 2: the value of HOST has a quote that is not closed",
        ),
        ("HOST='127.0.0.1\nPORT=1\n", ".env line 1: the value of HOST has a quote that is not"),
        (
            'export HOST="::" secret',
            ".env line 1: the value of HOST has a quote that is not closed",
        ),
        ('A="1\nPORT=2\nB="x"\n', ".env line 1: the value of this name has a quote"),
        *(
            (f"{name}=secret", f".env line 1: {name} is no setting; did you mean {nearest}?")
            for name, nearest in (
                ("OPENAI_BASEURL", "OPENAI_BASE_URL"),
                ("openai_key", "OPENAI_API_KEY"),
                ("DATADIR", "DATA_DIR"),
                ("REDIS_URI", "REDIS_URL"),
                ("ALLOWED_HOST", "ALLOWED_HOSTS"),
                ("LOGLEVEL", "LOG_LEVEL"),
                ("OPENAI_API_BASE", "OPENAI_BASE_URL"),
                ("OPENAI_URL", "OPENAI_BASE_URL"),
                ("OPENAI_API_URL", "OPENAI_BASE_URL"),
                ("TRUSTED_PROXY", "TRUSTED_PROXIES"),
                ("TURN_MAX", "TURN_MAX_S"),
            )
        ),
        ("PORT=1\nWORKERS=1\nport=2", ".env line 3: PORT is set in line 1 already: remove one"),
        ("DATA_DIR=$HOME/x", ".env line 1: the value of DATA_DIR begins with $: write ${NAME}"),
        ("OPENAI_API_KEY=$secret", ".env line 1: the value of OPENAI_API_KEY begins with $: "),
        ('OPENAI_API_KEY="$secret"', ".env line 1: the value of OPENAI_API_KEY begins with $: "),
        (
            "OPENAI_API_KEY=a${secret}b",
            ".env line 1: the value of OPENAI_API_KEY names a variable that is not set",
        ),
        *(
            (f"{line}\n", f"{line.partition('=')[0]} is invalid (.env line 1): must not contain $")
            for line in (
                "OPENAI_BASE_URL=http://$secret/v1",
                "OPENAI_BASE_URL='http://127.0.0.1:$secret/v1'",
                "MODERATION_BASE_URL=https://h/$secret",
                "REDIS_URL=redis://:$secret@h",
                "REDIS_URL=redis://h?ssl_ca_certs=$_secret/ca.pem",
                "MODEL=/x/$secret.gguf",
            )
        ),
        (
            'UPSTREAMS=[{"base_url": "http://$secret/v1", "model": "m"}]',
            "UPSTREAMS 0 base_url is invalid (.env line 1): must not contain $",
        ),
        ("DATA_DIR=~nobody-of-this-name/x", "DATA_DIR is invalid (.env line 1): begins with ~"),
        ("DATA_DIR=/x/$HOME", "DATA_DIR is invalid (.env line 1): must not contain $"),
        ('SYSTEM_PROMPT="a\nb"\n\nPORT=x', "PORT is invalid (.env line 4): input should be"),
        ("PORT=1\r\nWORKERS=0\r\n", "WORKERS is invalid (.env line 2): input should be"),
        (b"PORT=1\nSYSTEM_PROMPT=\xff", ".env is not UTF-8 text (line 2)"),
        ("PORT=1".encode("utf-16"), ".env is not UTF-8 text (line 1)"),
        (b"PORT=1\r\nHOST=a\0b\n", ".env line 2: a NUL character is no text"),
    ],
)
def test_a_fault_is_one_line_that_names_its_place_and_not_its_value(
    text: str | bytes, message: str
) -> None:
    write(text)
    with pytest.raises(SettingsError) as caught:
        load()
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("DATA_DIR=~/x", {"data_dir": Path("/home/somebody/x")}),
        ("DATA_DIR=~", {"data_dir": Path("/home/somebody")}),
        ("DATA_DIR='~/x'", {"data_dir": Path("/home/somebody/x")}),
        ("DATA_DIR=${HOME}/x", {"data_dir": Path("/home/somebody/x")}),
        ("DATA_DIR=${UNSET:-/y}/x", {"data_dir": Path("/y/x")}),
        ("DATA_DIR=a~/x", {"data_dir": Path("a~/x")}),
        ("A=9\nPORT=${A}", {"port": 9}),
        ("PORTS=9\nPORT=${PORTS}", {"port": 9}),
        ("OPENROUTER_API_KEY=x\nHOST_DATA_DIR=x\nREDIS_USER=x", {"port": 8000}),
        ("AZURE_OPENAI_API_KEY=x\nOPENAI_API_KEY_2=x\nOPENAI_API_VERSION=x", {"port": 8000}),
        ("export PORT=9", {"port": 9}),
        ("PORT = 9 # a comment", {"port": 9}),
        ("port=9\r\nHOST='::1'\r\n", {"port": 9, "host": "::1"}),
        ("\ufeffPORT=9", {"port": 9}),
        ("HOST=127.0.0.2\nREDIS_URL=redis://${HOST}", {"redis_url": "redis://127.0.0.2"}),
        ("REDIS_URL=redis://:pa$5$@h", {"redis_url": "redis://:pa$5$@h"}),
        ('SYSTEM_PROMPT="$5, or\n${5"', {"system_prompt": "$5, or\n${5"}),
        ("SYSTEM_PROMPT='$5a'", {"system_prompt": "$5a"}),
        ("SYSTEM_PROMPT='$USD'", {"system_prompt": "$USD"}),
        ("SYSTEM_PROMPT=costs $USD", {"system_prompt": "costs $USD"}),
        *((f"{name}=production", {"port": 8000}) for name in SHORT),
        ("UNRELATED=1\nUNRELATED=2\nTZ=$X", {"port": 8000}),
        ("PORT=\nHOST=\n", {"port": 8000, "host": "127.0.0.1"}),
        ("", {"port": 8000}),
    ],
)
def test_lines_that_are_taken_as_they_are_meant(text: str, expected: dict[str, object]) -> None:
    write(text)
    settings = load()
    assert {name: getattr(settings, name) for name in expected} == expected


def test_the_line_is_not_blamed_for_a_value_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write("PORT=1")
    monkeypatch.setenv("PORT", "x")
    with pytest.raises(SettingsError, match=r"^PORT is invalid: "):
        load()
    monkeypatch.setenv("PORT", "")  # counts as unset
    assert load().port == 1


def test_a_path_of_the_environment_may_begin_with_a_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_DIR", "~/x")
    monkeypatch.setenv("MODEL", "~/model.gguf")
    assert (load().data_dir, load().model) == (
        Path("/home/somebody/x"),
        Path("/home/somebody/model.gguf"),
    )
    monkeypatch.setenv("MODEL", "${HOME}/model.gguf")
    with pytest.raises(SettingsError, match=r"^MODEL is invalid: must not contain \$"):
        load()


@pytest.fixture
def _as_another_user() -> Iterator[None]:
    """Drop the rights of root, who may read everything."""
    user = os.geteuid()
    os.seteuid(user or 65534)
    yield
    os.seteuid(user)


def make_directory() -> None:
    Path(".env").mkdir()


def make_dangling_link() -> None:
    Path(".env").symlink_to("nowhere")


def make_pipe() -> None:
    os.mkfifo(".env")


def make_unreadable() -> None:
    write("PORT=1")
    Path(".env").chmod(0)
    Path().chmod(0o711)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (make_directory, "Is a directory"),
        (make_dangling_link, "No such file or directory"),
        (make_pipe, "it is a pipe, not a file"),
    ],
)
def test_an_env_file_that_is_not_a_file_is_one_line(make: Callable[[], None], reason: str) -> None:
    make()
    with pytest.raises(SettingsError, match=rf"^\.env cannot be read: {reason}$"):
        load()


def test_an_unreadable_env_file_is_one_line(request: pytest.FixtureRequest) -> None:
    make_unreadable()
    request.getfixturevalue("_as_another_user")
    with pytest.raises(SettingsError, match=r"^\.env cannot be read: Permission denied$"):
        load()


def test_names_that_are_not_settings_are_logged_without_their_values(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write("PORT=1\nUNRELATED=secret\n" + "".join(f"{name}=secret\n" for name in SHORT))
    monkeypatch.setenv("OPENAI_BASEURL", "secret")
    monkeypatch.setenv("REDIS_HOST", "secret")
    monkeypatch.setenv("OPENAI_ORG_ID", "secret")
    warn_of_unknown_names(NAMES)
    fault = "sets no setting, and has no effect"
    assert f".env line 2 {fault}" in caplog.messages
    for line, nearest in enumerate(SHORT.values(), start=3):
        assert f".env line {line} {fault}; did you mean {nearest}?" in caplog.messages
    assert (
        "OPENAI_BASEURL in the environment is no setting; did you mean OPENAI_BASE_URL?"
        in caplog.messages
    )
    assert "REDIS_HOST" not in caplog.text
    assert "OPENAI_ORG_ID" not in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize(("mode", "is_exposed"), [(0o600, False), (0o640, False), (0o644, True)])
def test_a_world_readable_env_file_causes_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, is_exposed: bool
) -> None:
    path = tmp_path / ".env"
    path.write_text("OPENAI_API_KEY=sk-secret\n")
    path.chmod(mode)
    warn_if_exposed(path)
    assert ("chmod 600 .env" in caplog.text) is is_exposed
    assert "secret" not in caplog.text


def test_a_missing_env_file_causes_no_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    warn_if_exposed(tmp_path / ".env")
    assert caplog.text == ""
