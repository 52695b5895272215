"""A warning at the start for a `.env` that every user of the machine may read."""

from pathlib import Path

import pytest

from config.system.env_file import warn_if_exposed


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
