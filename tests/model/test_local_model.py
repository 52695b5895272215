"""MODEL with the real llama-server: Holdline runs it, answers with it and reports its errors."""

import os
import signal
from pathlib import Path

import httpx
import psutil
import pytest

from tests.model.model_server import find_binary, find_model
from tests.processes import PATIENCE_S, holdline
from tests.streams import read, text_of

QUESTION = "Name three colors."


@pytest.fixture
def path() -> str:
    """Return a PATH whose first folder has the packaged llama-server."""
    return f"{Path(find_binary()).parent}{os.pathsep}{os.environ['PATH']}"


async def test_a_local_model_answers_until_the_server_is_stopped(path: str) -> None:
    options = {"LLAMA_ARG_N_PREDICT": "24", "LLAMA_ARG_THREADS": "1"}
    async with (
        holdline(PATH=path, MODEL=find_model(), **options) as server,
        httpx.AsyncClient(base_url=server.url, timeout=300) as client,
    ):
        events = await read(client, message=QUESTION)
        assert events[-1].event == "end"
        assert events[-1].data == text_of(events) != ""
        assert '"model": "SmolLM2-135M-Instruct.Q4_1"' in events[0].data
        (llama_server,) = (
            child
            for child in psutil.Process(server.process.pid).children()
            if child.name() == "llama-server"
        )
        assert QUESTION not in (server.home / "data" / "llama-server.log").read_text()
        await server.stop(signal.SIGKILL)
        llama_server.wait(PATIENCE_S)


@pytest.mark.parametrize(
    ("size", "cause"),
    [(3_000_000, "model is corrupted or incomplete"), (100, "failed to load model")],
)
async def test_an_incomplete_model_ends_the_start_with_one_line(
    path: str, tmp_path: Path, size: int, cause: str
) -> None:
    model = tmp_path / "incomplete.gguf"
    model.write_bytes(Path(find_model()).read_bytes()[:size])
    with pytest.raises(AssertionError) as caught:
        async with holdline(PATH=path, MODEL=str(model)):
            pass
    (line,) = [line for line in str(caught.value).splitlines() if line.startswith("holdline: ")]
    assert line.startswith(f"holdline: llama-server could not load {model} (exit status 1): ")
    assert cause in line
