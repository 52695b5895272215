"""The documentation of the API at /docs."""

import re

import httpx
from playwright.async_api import Page, expect


async def test_the_documentation_lists_every_operation_and_type(
    page: Page, client: httpx.AsyncClient
) -> None:
    """The fixture `page` fails if the policy blocks something, or another host is asked."""
    document = (await client.get("/docs/openapi.json")).json()
    await page.goto("/docs")
    operations = [
        f"{method.upper()} {path}"
        for path, methods in document["paths"].items()
        for method in methods
    ]
    schemas = list(document["components"]["schemas"])
    links = page.locator("nav a")
    await expect(links).to_have_count(len(operations) + len(schemas))
    assert sorted(await links.all_text_contents()) == sorted(operations + schemas)
    await expect(page.locator("main details")).to_have_count(len(operations) + len(schemas))


async def test_a_link_to_an_operation_shows_its_parameters_and_a_command(
    page: Page, client: httpx.AsyncClient
) -> None:
    await page.goto("/docs#list_conversations")
    entry = page.locator("#list_conversations")
    await expect(entry.locator('[data-part="parameters"]')).to_contain_text("cursor")
    url = re.escape(f"{client.base_url}/api/conversations/")
    await expect(entry.locator("pre")).to_have_text(re.compile(f"^curl .*'{url}'$"))
    await page.get_by_role("link", name="POST /api/chat_stream/").click()
    body = page.locator("#stream_by_post").locator('[data-part="body"]')
    await expect(body).to_be_visible()
    await body.get_by_role("link", name="StreamRequest").click()
    await expect(page.locator("#StreamRequest").get_by_text("regenerate")).to_be_visible()
