"""Files of the pages: validated by their content (RFC 9110 §13.1.2), never by their times."""

import re

import httpx
import pytest

from tests.processes import ROOT, Server

FILES = [
    "/", "/docs", "/favicon.svg",
    "/vendor/marked.js", "/vendor/morphdom.js", "/vendor/purify.js",
    *(
        "/" + path.relative_to(ROOT / "frontend").as_posix()
        for folder in ("js", "styles")
        for path in sorted((ROOT / "frontend" / folder).rglob("*.*s"))
    ),
]  # fmt: skip
FUTURE = "Fri, 31 Dec 2100 23:59:59 GMT"


@pytest.mark.parametrize("path", FILES)
async def test_an_unchanged_file_is_not_sent_again(client: httpx.AsyncClient, path: str) -> None:
    sent = await client.get(path)
    tag = sent.headers["etag"]
    assert re.fullmatch(r'"[0-9a-f]{64}"', tag)
    assert "last-modified" not in sent.headers
    assert sent.headers["cache-control"] == "no-cache"
    head = await client.head(path)
    assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", tag)
    assert head.headers["content-length"] == str(len(sent.content))
    for method in ("GET", "HEAD"):
        unchanged = await client.request(method, path, headers={"If-None-Match": tag})
        assert (unchanged.status_code, unchanged.content) == (304, b"")
        omitted = {"content-length", "content-type", "set-cookie", "connection"}
        for name in set(sent.headers) - omitted:
            assert unchanged.headers[name] == sent.headers[name], name


@pytest.mark.parametrize(
    "condition",
    ["TAG", "W/TAG", "*", '"a",TAG', '"a, b" , W/"c",\tW/TAG , ""', ",TAG,"],
)
async def test_a_condition_that_names_the_content_gets_304(
    client: httpx.AsyncClient, condition: str
) -> None:
    for path in ("/", "/js/app.js"):
        tag = (await client.get(path)).headers["etag"]
        headers = {"If-None-Match": condition.replace("TAG", tag)}
        assert (await client.get(path, headers=headers)).status_code == 304
    lines = [("If-None-Match", '"a"'), ("If-None-Match", condition.replace("TAG", tag))]
    if "*" not in condition:
        assert (await client.get(path, headers=lines)).status_code == 304


@pytest.mark.parametrize(
    "headers",
    [
        {"If-None-Match": condition}
        for condition in ("", '""', "HEX", '"HEX', '"a HEX"', 'w/"HEX"', '"a*"', '"*"', "W/*", ",")
    ]
    + [
        {"If-Modified-Since": FUTURE},
        {"If-Modified-Since": FUTURE, "If-None-Match": '"a"'},
        {"If-Modified-Since": "secret"},
    ],
    ids=str,
)
async def test_any_other_condition_gets_the_file_and_is_not_logged(
    client: httpx.AsyncClient, server: Server, headers: dict[str, str]
) -> None:
    before = len(server.read_log())
    for path in ("/", "/docs", "/js/app.js", "/styles/base.css", "/vendor/marked.js"):
        sent = await client.get(path)
        tag = sent.headers["etag"].strip('"')
        conditions = {name: value.replace("HEX", tag) for name, value in headers.items()}
        response = await client.get(path, headers=conditions)
        assert (response.status_code, response.content) == (200, sent.content)
    log = server.read_log()[before:]
    assert "secret" not in log
    assert "If-Modified-Since" not in log
