"""Answers are complete after Holdline, or one of two Holdlines behind a proxy, has died."""

import asyncio
import signal
import ssl
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
from playwright.async_api import Browser

from tests.config.test_supervisor import wait_for_exit
from tests.fake_upstream import Exchange, ScriptedUpstream
from tests.processes import (
    PATIENCE_S,
    Server,
    find_worker,
    free_ports,
    holdline,
    private_folder,
    start,
)
from tests.proxies.configurations import BALANCING, SHIPPED
from tests.proxies.conftest import find_port, require
from tests.proxies.curl import PROTOCOLS, request
from tests.proxies.fronts import start_front
from tests.raw_server import END, chunked, raw_server, respond
from tests.streams import STREAM
from tests.viewer import Viewer

EVENT_SOURCE = """(url) => {
  Object.assign(window, { opened: 0, text: "", complete: "" });
  const source = new EventSource(url);
  source.onopen = () => opened++;
  source.onmessage = (event) => (text += event.data);
  source.addEventListener("restart", () => (text = ""));
  source.addEventListener("end", (event) => {
    source.close();
    complete = event.data;
  });
}"""


@dataclass
class Asked:
    """A question whose answer has begun."""

    question: str
    partial: str
    exchange: Exchange
    viewer: Viewer
    reading: asyncio.Task[None]
    server: int
    """The process id of the supervisor whose worker generates the answer."""


async def begin(client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str) -> Asked:
    """Ask a question and return when its viewer has received the first part of the answer."""
    partial = f"the answer to {question} begins "
    viewer = Viewer(client, {"message": question})
    reading = asyncio.create_task(viewer.read_to_end())
    exchange = await upstream.exchange(question)
    await exchange.send_text(partial)
    async with asyncio.timeout(PATIENCE_S):
        while viewer.text != partial:
            await asyncio.sleep(0.02)
    server = psutil.Process(find_worker(exchange.connection)).ppid()
    return Asked(question, partial, exchange, viewer, reading, server)


def model_settings(upstream: ScriptedUpstream) -> dict[str, str]:
    return {
        "OPENAI_BASE_URL": upstream.base_url, "CHAT_MODEL": "m",
        "CONTINUE_MODE": "prompt", "LEASE_S": "1",
    }  # fmt: skip


async def kill(server: Server) -> None:
    """Kill the supervisor of a server, and return when none of its processes is alive."""
    children = psutil.Process(server.process.pid).children(recursive=True)
    await server.stop(signal.SIGKILL)
    await wait_for_exit(*(child.pid for child in children))


@pytest.mark.parametrize("name", ["nginx", "caddy", "haproxy"])
async def test_a_plain_eventsource_survives_a_restart_of_holdline(
    name: str, certificate: Path, browser: Browser, upstream: ScriptedUpstream, question: str
) -> None:
    """While Holdline is down, the EventSource connects to the proxy, and keeps trying."""
    require(name)
    (port,) = free_ports(1)
    settings = {"PORT": str(port), **model_settings(upstream)}
    async with private_folder() as home, start_front(name, certificate, port) as front:
        server = await start(home, **settings)
        try:
            context = await browser.new_context(
                base_url=front.url, ignore_https_errors=True, bypass_csp=True
            )
            page = await context.new_page()
            await page.goto("/")
            await page.evaluate(EVENT_SOURCE, f"{STREAM}?message={question}")
            exchange = await upstream.exchange(question)
            await exchange.send_text(f"before {question} ")
            await page.wait_for_function(f"text === 'before {question} '")
            await kill(server)
            opened = await page.evaluate("opened")
            await page.wait_for_function(f"opened > {opened}")
            server = await start(home, **settings)
            await (await upstream.continued(f"before {question} ")).answer("and after")
            await page.wait_for_function("complete")
            whole = f"before {question} and after"
            assert await page.evaluate("[text, complete]") == [whole, whole]
            assert len(upstream.find_requests(question)) == 1
            await context.close()
        finally:
            await server.stop()


async def test_answers_behind_nginx_are_complete_after_one_of_two_servers_is_killed(
    certificate: Path, redis_url: str, upstream: ScriptedUpstream, question: str
) -> None:
    """An answer of the killed server costs a second request, which continues it; no other does."""
    require("nginx")
    settings = {"REDIS_URL": redis_url, **model_settings(upstream)}
    trusted = ssl.create_default_context(cafile=str(certificate / "ca.pem"))
    async with (
        AsyncExitStack() as stack,
        holdline(**settings) as killed,
        holdline(**settings) as kept,
        start_front("nginx", certificate, find_port(killed), find_port(kept)) as front,
    ):
        asked = []
        for number in range(6):
            client = httpx.AsyncClient(base_url=front.url, verify=trusted, timeout=PATIENCE_S)
            await stack.enter_async_context(client)
            asked.append(await begin(client, upstream, f"{question} {number}"))
        lost = [one for one in asked if one.server == killed.process.pid]
        assert 0 < len(lost) < len(asked)
        await kill(killed)
        for one in asked:
            exchange = await upstream.continued(one.partial) if one in lost else one.exchange
            await exchange.answer("and ends")
            await one.reading
            assert one.viewer.text == f"{one.partial}and ends"
            assert one.viewer.endings == ["end"]
            requests = [e for e in upstream.exchanges if one.question in str(e.messages)]
            assert len(requests) == 1 + (one in lost)


@pytest.mark.parametrize("name", SHIPPED)
async def test_requests_succeed_as_soon_as_holdline_is_back(name: str, certificate: Path) -> None:
    """Several requests at a time, because some proxies have processes with separate states."""
    require(name)
    (port,) = free_ports(1)

    async def get_status() -> int:
        async with request(front, "http2", "/") as response:
            assert await response.read_to_end() == 0
        return response.status

    async with start_front(name, certificate, port) as front:
        statuses = await asyncio.gather(*(get_status() for _ in range(8)))
        assert set(statuses) <= {502, 503}
        async with raw_server(port) as origin:
            origin.serve = respond(chunked(b"ok") + END)
            assert await asyncio.gather(*(get_status() for _ in range(8))) == [200] * 8


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", BALANCING)
async def test_requests_reach_the_second_server_while_the_first_one_is_down(
    name: str, protocol: str, certificate: Path
) -> None:
    require(name)
    (closed,) = free_ports(1)
    async with raw_server() as origin:
        origin.serve = respond(chunked(b"ok") + END)
        for path, body in (("/", None), (STREAM, {}), ("/v1/chat/completions", {})):
            async with start_front(name, certificate, closed, origin.port) as front:
                for _ in range(4):
                    async with request(front, protocol, path, body=body) as response:
                        await response.read_to_end()
                    assert (response.status, response.body) == (200, b"ok")


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", ["nginx", "caddy", "haproxy"])
async def test_only_an_eventsource_gets_a_retry_while_holdline_is_down(
    name: str, protocol: str, certificate: Path
) -> None:
    require(name)
    (closed,) = free_ports(1)
    accept = {"Accept": "text/event-stream"}
    async with start_front(name, certificate, closed) as front:
        for prefix in ("", "/chat"):
            path = f"{prefix}{STREAM}?message=q"
            async with request(front, protocol, path, accept) as response:
                assert await response.read_to_end() == 0
            assert response.status == 200
            assert response.headers["content-type"] == "text/event-stream"
            assert response.body == b"retry: 1000\n"  # and no empty line, which would reset the id
        for path, headers, body in (
            (STREAM, {}, None), (STREAM, accept, {}), ("/api/conversations/", accept, None)
        ):  # fmt: skip
            async with request(front, protocol, path, headers, body) as response:
                assert await response.read_to_end() == 0
            assert response.status in (502, 503)
