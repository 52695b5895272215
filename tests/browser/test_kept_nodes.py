"""Streaming leaves alone what a user does in the growing block, and what extensions do to it."""

from playwright.async_api import Page

LINK = "[the manual](https://example.org/manual)"
WIDE = "x = " + "value + " * 60
CODE = f"```python\n{WIDE}\n"
BLOCKS = {
    "paragraph": (f"Read {LINK} first", " and then **more** words `code` and\nlines" * 9),
    "heading": (f"# Read {LINK} first", " and then **more** words" * 5),
    "quote": (f"> Read {LINK} first", " and then **more** words\n> in lines" * 9),
    "tight item": (f"- one\n- Read {LINK} first", " and then **more** words" * 9),
    "loose item": (f"1. one\n\n2. Read {LINK} first", " and **more** words\n\n   too" * 9),
    "nested item": (f"- one\n  - two\n    - Read {LINK} first", "\n    - and **more**" * 9),
    "item with items": (f"- Read {LINK} first", "\n  - and then **more** words" * 9),
    "item of a long inner list": (
        "1. one\n" + "   - item\n" * 22 + f"   - Read {LINK} first",
        " and **more** words" * 5 + "\n   - and then" * 9,
    ),
    "cell": (f"| a | b |\n|---|---|\n| 1 | 2 |\n| {LINK} |", " and then **more** words" * 9),
    "code": (CODE, "    and(more, words)\n" * 300 + "```\n\nAfter it"),
    "code in an item": (
        "- one\n\n" + f"  {CODE}".replace("\nx", "\n  x"),
        "  and(more)\n" * 20 + "  ```\n\n  After it",
    ),
    "wide table in an item": (
        f"- | a | {'long' * 90} |\n  |---|---|\n  | {LINK} | 2 |\n", "  | 3 | 4 |\n" * 9
    ),
}  # fmt: skip
"""The beginning of a growing block, with a link or code, and its continuation."""

FOLLOW = r"""async ([before, after]) => {
  const { markSeams } = await import("/js/markdown/continuation_mark.js");
  const { StreamingMarkdown } = await import("/js/markdown/streaming_markdown.js");
  const message = document.querySelector("#assistant-message").content.cloneNode(true);
  document.querySelector("#messages").append(message);
  const element = document.querySelector("#messages article:last-child .message-body");
  const writer = new StreamingMarkdown(element);
  writer.write(before);
  const used = element.querySelectorAll("a, .copy-code, pre, .table-scroll");
  const boxes = [...element.querySelectorAll("pre, .table-scroll")];
  const scrolled = boxes.filter((box) => box.scrollWidth > box.clientWidth + 50);
  for (const box of scrolled) box.scrollLeft = 50;
  const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  let text = null;
  for (let node; (node = walker.nextNode()); ) if (node.data.trim().length > 2) text = node;
  getSelection().setBaseAndExtent(text, 0, text, 3);
  const selected = String(getSelection());
  used[0].focus({ preventScroll: true });
  const lost = [];
  const check = (at) => {
    for (const node of used) if (!element.contains(node)) lost.push([at, node.outerHTML]);
    for (const box of scrolled) if (box.scrollLeft !== 50) lost.push([at, "scroll position"]);
    if (String(getSelection()) !== selected) lost.push([at, `selection: ${getSelection()}`]);
    if (document.activeElement !== used[0]) lost.push([at, "focus"]);
  };
  const whole = before + after;
  for (let end = before.length; end <= whole.length; end += 17) {
    writer.write(whole.slice(0, end));
    check(end);
  }
  writer.write(`${whole}\n\nEnd`);
  writer.finish(`${whole}\n\nEnd`);
  markSeams(element, `${whole}\n\nEnd`, [{ at: whole.length + 3, why: "timeout" }]);
  check("end");
  const seams = element.querySelectorAll(".seam").length;
  return { used: used.length, selected, seams, lost: lost.slice(0, 3) };
}"""


async def test_a_growing_block_keeps_its_nodes_and_their_state(
    page: Page,
) -> None:
    for kind, texts in BLOCKS.items():
        found = await page.evaluate(FOLLOW, texts)
        assert found["used"] > 0, kind
        assert found["selected"].strip(), kind
        assert (found["seams"], found["lost"]) == (1, []), kind


EXTENSIONS = {
    "translator": """(node) => {
      for (const text of texts(node)) {
        const font = document.createElement("font");
        text.replaceWith(font);
        font.append(document.createElement("font"));
        font.firstChild.append(text);
      }
    }""",
    "translator that replaces texts": """(node) => {
      for (const text of texts(node)) {
        const font = document.createElement("font");
        font.textContent = text.data;
        text.replaceWith(font);
      }
    }""",
    "spelling checker": """(node) => {
      for (const element of node.querySelectorAll("p, li, td, code"))
        element.prepend(document.createElement("grammarly-extension"));
      node.append(document.createElement("grammarly-extension"));
    }""",
    "elements between": """(node) => {
      for (const element of node.querySelectorAll(":not(.own)")) {
        const own = document.createElement("p");
        own.className = "own";
        element.after(own);
      }
    }""",
    "attributes": """(node) => {
      for (const element of [node, ...node.querySelectorAll("*")]) {
        element.dataset.darkreaderMode = "dynamic";
        element.id = "same";
      }
    }""",
    "copies": """(node) => {
      for (const child of [...node.children]) child.replaceWith(child.cloneNode(true));
    }""",
    "a copy of the last child": """(node) => {
      for (let last = node; (last = last.lastElementChild); )
        if (!last.lastElementChild) last.replaceWith(last.cloneNode(true));
    }""",
    "a wrapper": """(node) => {
      const font = document.createElement("font");
      font.append(...node.childNodes);
      node.append(font);
    }""",
    "split texts": """(node) => {
      for (const text of texts(node)) if (text.length > 2) text.splitText(1);
    }""",
    "removed nodes": "(node) => node.lastElementChild?.remove()",
    "everything removed": "(node) => node.replaceChildren()",
}
"""How extensions change an element; they keep its text, or remove some that is shown again."""

DISTURB = r"""async ([before, after]) => {
  const { renderMarkdown } = await import("/js/markdown/render.js");
  const { StreamingMarkdown } = await import("/js/markdown/streaming_markdown.js");
  const texts = (node) => {
    const walker = document.createTreeWalker(node, NodeFilter.SHOW_TEXT);
    const found = [];
    while (walker.nextNode()) if (walker.currentNode.data.trim()) found.push(walker.currentNode);
    return found;
  };
  const disturb = CHANGE;
  const [element, other] = [1, 2].map(() => document.createElement("div"));
  document.querySelector("#messages").append(element);
  const writer = new StreamingMarkdown(element);
  const wrong = [];
  const words = (node) => node.textContent.replace(/\s/g, "");
  const check = (text) =>
    words(element) !== words(other) && wrong.push([text, element.innerHTML, other.innerHTML]);
  const whole = before + after;
  for (let end = before.length; end <= whole.length; end += 11) {
    const text = whole.slice(0, end);
    writer.write(text);
    new StreamingMarkdown(other).write(text);
    check(text);
    disturb(element);
  }
  writer.finish(whole);
  other.replaceChildren(renderMarkdown(whole));
  check(whole);
  return wrong.slice(0, 1);
}"""


async def test_a_change_by_an_extension_neither_loses_nor_doubles_text(
    page: Page,
) -> None:
    for extension, change in EXTENSIONS.items():
        for kind, (before, after) in BLOCKS.items():
            text = f"An introduction.\n\n{before}"
            wrong = await page.evaluate(DISTURB.replace("CHANGE", change), [text, after[:200]])
            assert wrong == [], f"{extension}, {kind}"
