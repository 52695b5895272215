"""Read responses, logs and processes for missing headers and for secrets."""

import asyncio
import contextlib
import os
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from tests.attack.sessions import get_cookie
from tests.attack.target import KEY, Outcome, Target, begin, exchange_raw, is_served, own_target
from tests.fake_upstream import Exchange
from tests.processes import Server, private_folder, start
from tests.streams import STREAM

_EVERYWHERE = {
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "",
    "permissions-policy": "",
    "content-security-policy": "",
}


async def read_headers(target: Target) -> Outcome:
    """Read the headers of pages, files, data, streams and errors."""
    missing: Counter[str] = Counter()
    async with target.open_client() as client:
        await client.get("/")
        created = (await client.post("/api/conversations/", json={})).json()["id"]
        path = f"/api/conversations/{created}"
        private = ["/api/conversations/", path, f"{path}/export", f"{path}/export?format=html"]
        for where in ("/", "/docs", "/js/app.js", "/api/info", "/api/nothing", STREAM, *private):
            response = await client.get(where)
            missing.update(
                header
                for header, value in _EVERYWHERE.items()
                if header not in response.headers or value not in response.headers[header]
            )
            if where in private and "no-store" not in response.headers.get("cache-control", ""):
                missing["no-store of private data"] += 1
        secure = await client.get("/", headers={"X-Forwarded-Proto": "https"})
        if "strict-transport-security" not in secure.headers:
            missing["strict-transport-security under https"] += 1
    names = ", ".join(f"{count}x {name}" for name, count in missing.items())
    return Outcome(not missing, f"missing: {names or 'none'}")


async def read_the_log(target: Target) -> Outcome:
    """Search the log at LOG_LEVEL=debug for texts, cookies, keys and control characters."""

    async def fail(exchange: Exchange) -> None:
        exchange.reply(400, {"error": {"message": f"crimson {KEY}"}})

    name, value = await get_cookie(target)
    async with target.open_client(headers={"Cookie": f"{name}={value}"}) as client:
        await client.get(STREAM, params={"message": "saffron"})
        target.respond = fail
        await client.get(STREAM, params={"message": "saffron again"})
        await client.post(STREAM, content="saffron")
        await client.get("/api/nothing?message=saffron")
    for request in (
        b"GET /api/chat_stream/?message=saffron\0 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /api/chat_stream/?message=saffron HTTP/9.9\r\nHost: x\r\n\r\n",
        b"saffron\x1b[31m /?saffron\r\n\r\n",
        b"GET /%1b%5b31m%0d%0a2026-01-01?message=saffron HTTP/1.1\r\nHost: \x1b[2Jx\r\n\r\n",
        b"GET /api/chat_stream/?message=saffron HTTP/1.1\r\nHost: x\r\nsaffron\r\n\r\n",
    ):
        await exchange_raw(target, request)
    served = await is_served(target)
    log = target.server.read_log()
    found = [one for one in ("saffron", "crimson", value, KEY) if one in log]
    controls = re.findall(r"[\x00-\x08\x0b-\x1f\x7f\x80-\x9f\u2028\u2029]", log)
    return Outcome(
        not found and not controls and served,
        f"found: {', '.join(one[:12] for one in found) or 'nothing'}; "
        f"{len(controls)} control characters",
    )


async def read_the_environment(target: Target) -> Outcome:
    """Start the embedded Redis through a program that writes down its environment."""
    del target
    real = shutil.which("redis-server")
    if real is None:
        return Outcome(False, "there is no redis-server on the PATH")
    async with private_folder() as folder:
        program = folder / "redis-server"
        program.write_text(
            f'#!/bin/sh\n{{ echo "$@"; env; }} > {folder}/environment.$$\nexec {real} "$@"\n'
        )
        program.chmod(0o755)
        async with own_target(PATH=f"{folder}:{os.environ['PATH']}"):
            texts = [path.read_text() for path in folder.glob("environment.*")]
    started = [text for text in texts if "unixsocket" in text]
    leaks = [text for text in started if KEY in text]
    return Outcome(
        bool(started) and not leaks,
        f"{len(started)} started, {len(leaks)} with the upstream's key in the environment",
    )


async def read_files_of_data(target: Target) -> Outcome:
    """Look for files of the embedded Redis that other users of the machine may read."""
    data = target.server.home / "data"
    redis = data / "redis"
    mode = redis.stat().st_mode & 0o777
    port = (await target.redis.config_get("port"))["port"]
    return Outcome(mode == 0o700 and port == "0", f"mode {mode:o} of its folder, port {port}")


async def leave_a_readable_env(target: Target) -> Outcome:
    """Start a server next to a world-readable `.env` with a key: the log must warn."""
    del target
    async with private_folder() as home:
        (home / ".env").write_text(f"OPENAI_API_KEY={KEY}\nCHAT_MODEL=m\n")
        (home / ".env").chmod(0o644)
        server = await start(home, OPENAI_BASE_URL="http://127.0.0.1:9/v1")
        await server.stop()
        log = server.read_log()
    warned = ".env" in log and KEY not in log
    return Outcome(warned, "a warning" if warned else "no warning")


async def listen_on_all_addresses(target: Target) -> Outcome:
    """Start a server on all addresses without ALLOWED_HOSTS: the log must warn."""
    del target
    async with private_folder() as home:
        server: Server = await start(home, HOST="0.0.0.0")
        await server.stop()
        log = server.read_log()
    return Outcome("ALLOWED_HOSTS" in log, "a warning" if "ALLOWED_HOSTS" in log else "no warning")


async def raise_the_descriptors(target: Target) -> Outcome:
    """Read the limit of descriptors of a worker that was started with a low soft limit."""
    (worker,) = target.list_workers()
    limits = Path(f"/proc/{worker.pid}/limits").read_text()
    soft, hard = re.findall(r"^Max open files +(\w+) +(\w+)", limits, re.MULTILINE)[0]
    logged = hard in target.server.read_log()
    return Outcome(
        soft == hard and logged, f"soft {soft}, hard {hard}, {'' if logged else 'not '}logged"
    )


async def use_v1_from_elsewhere(target: Target) -> Outcome:
    """Use /v1 without API_KEYS through a proxy, from a page, and under another name."""
    body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    variants: list[dict[str, str]] = [
        {"X-Forwarded-For": "203.0.113.9"},
        {"Forwarded": "for=203.0.113.9"},
        {"Via": "1.1 proxy"},
        {"Host": "chat.example"},
        {"Origin": "http://evil.example"},
        {"User-Agent": "Mozilla/5.0", "Sec-Fetch-Site": "cross-site"},
    ]
    statuses = []
    async with target.open_client() as client:
        for headers in variants:
            response = await client.post("/v1/chat/completions", json=body, headers=headers)
            statuses.append(response.status_code)
    return Outcome(
        all(status in (401, 403, 421) for status in statuses), f"statuses: {sorted(statuses)}"
    )


async def kill_workers_often(target: Target) -> Outcome:
    """Kill the only worker six times as soon as it is back: the server must not give up."""
    for _ in range(6):
        for worker in target.list_workers():
            with contextlib.suppress(ProcessLookupError):
                worker.kill()
        await asyncio.sleep(0.7)
    served = False
    for _ in range(8):
        async with target.open_client(timeout=10) as client:
            with contextlib.suppress(Exception):
                served = served or await begin(client, "again") == 200
        if served:
            break
        await asyncio.sleep(4)
    alive = target.server.process.returncode is None
    return Outcome(
        alive and served,
        f"the server {'runs' if alive else 'exited'}, "
        f"others {'served' if served else 'not served'}",
    )
