"""Streamed Markdown equals, at every moment, the text so far rendered at once."""

import json

import pytest
from playwright.async_api import Page

TEXTS = {
    "tight list": (
        "Before\n\n- one\n- **two** words\n- [three](https://example.org/)\n- `four`\n\nAfter it"
    ),
    "loose list": "- one\n\n- two\n\n  more of two\n\n- three\n\n- four\n\nAfter",
    "becomes loose": "- one\n- two\n- three\n\n- four\n- five\n\n- six\n",
    "nested list": (
        "1. one\n   - a\n   - b\n     - deep\n2. two\n   - c\n\n     loose within\n3. three\n"
    ),
    "ordered from seven": "7. seven\n8. eight\n9. nine\n10. ten\n\n    more of ten\n11. eleven",
    "countdown": "5. e\n4. d\n3. c\n\nText\n\n9. i\n\n4. d\n\n   more\n\n1. a\n",
    "other bullets": "- a\n- b\n* c\n* d\n1) e\n2) f\n1. g\n2. h\n",
    "indented list": "  - one\n  - two\n   - three\n- four\n\n  - five\n  - six\n",
    "tasks": "- [ ] open\n- [x] done\n- plain\n\n- [x] loose\n- [ ] more\n",
    "code in a list": (
        "- one\n\n  ```python\n  a = 1\n\n  b = 2\n  ```\n- two\n  ~~~\n  - no\n  ~~~\n- 3"
    ),
    "list and rule": "- one\n- two\n* * *\n- three\n- - -\nend\n- a\n---\nb\n",
    "lazy list": "- one\nlazy\n- two\nlazy too\n# heading\n- three\n> quote\n",
    "quote in a list": "- one\n  > quoted\n  > more\n- two\n  1. x\n  2. y\n- three\n",
    "empty items": "- one\n-\n- three\n-\n\n- five\n",
    "table": ("| a | b |\n|---|:-:|\n| 1 | 2 |\n| **3** | `4` |\n| - | - |\n| 5 |\n\nAfter *it*"),
    "bare table": "a | b\n--- | ---\n1 | 2\n| 3 | 4\n5 | 6\nno cell\n\nAfter",
    "table in prose": (
        "Words\n| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | <br>4 |\n> quote\n| 5 | 6 |\n"
    ),
    "open fence": "```python\nfor x in y:\n    print(x)\n\n- no list\n| no | table |",
    "fences": "```\nplain\n```\n~~~js\nlet a;\n~~~\n    indented\n    code\n\nwords",
    "long code": "```python\n" + "".join(f"line {n} = {n}\n" for n in range(400)) + "```\n\nend",
    "long table": "|a|\n|-|\n" + "".join(f"|{n}|\n" for n in range(210)) + "\nend",
    "long list": "".join(f"{n}. i\n" for n in range(1, 210)) + "\nend",
    "long list becomes loose": "- a\n" * 130 + "\n- b\n\nend",
    "long inner list": (
        "1. one\n"
        + "".join(f"   - item {n} with **bold**\n" for n in range(24))
        + "   - lazy\nline\n     - deeper `code`\n     - more\n   - end **of\n2. two\n   - a\n\nend"
    ),
    "long innermost list": (
        "- one\n  + two words\n"
        + "".join(f"     {n}) item\n" for n in range(1, 23))
        + "\n     23) loose\n     24) now\n  + three\n- four"
    ),
    "long inner list and a paragraph": (
        "* one\n" + "  * item\n    of two lines\n" * 22 + "\n  words of one\n* two\n\n* loose"
    ),
    "long inner list with code": (
        "- one\n"
        + "  - [x] item\n" * 21
        + "  - ```js\n    - no\n    ```\n  - > quote\n  -\n  - x\n"
    ),
    "headings": "# One\ntext\nTwo\n===\nThree\n---\n\n#### Four\n",
    "html": (
        "<b>no</b> <div>\n\n- <img src=x onerror=alert(1)>\n- <script>alert(1)</script>\n\n<br>end"
    ),
    "Chinese": (
        "- **重点：**第一项\n- 第二项“引文”**强调。**后文\n\n| 名称 |\n|---|\n| 苹果 |\n| 梨 |\n"
    ),
    "spaces": "- Café\u00a0: 2\u202f€\n- Thé\u00a0: 3\u00a0€\n\n1. 一\u3000二\n2. 三\u2028四\n",
    "no text": (
        "![](https://example.org/a.png)\n\n[](https://example.org/) and\n"
        "- ![](https://example.org/b)\n"
    ),
    "definition": (
        "- see [one][1]\n- and [two][2]\n\n[1]: https://example.org/1\n[2]: https://example.org/2\n"
    ),
}

COMPARE = """async ([text, step]) => {
  const { StreamingMarkdown } = await import("/js/markdown/streaming_markdown.js");
  const { renderMarkdown } = await import("/js/markdown/render.js");
  const [streamed, fresh, complete] = [1, 2, 3].map(() => document.createElement("div"));
  const writer = new StreamingMarkdown(streamed);
  const different = [];
  // Ignores line ends between blocks and at the end of code, the direction, and the order of
  // attributes. Merges the chunks of blocks.
  const normalise = (element) => {
    const copy = element.cloneNode(true);
    for (const chunk of copy.querySelectorAll(".list-chunk"))
      chunk.previousElementSibling.append(...chunk.childNodes), chunk.remove();
    for (const block of [copy, ...copy.querySelectorAll("ul, ol, tbody")])
      for (const node of [...block.childNodes])
        if (node.nodeType === 3 && !node.data.trim()) node.remove();
    for (const table of copy.querySelectorAll(".chunked")) {
      const [first, ...chunks] = table.tBodies;
      for (const chunk of chunks) first.append(...chunk.rows), chunk.remove();
      for (const name of ["class", "style"]) table.removeAttribute(name);
    }
    for (const code of copy.querySelectorAll("code"))
      code.textContent = code.textContent.trimEnd();
    for (const element of copy.querySelectorAll("*")) {
      const attributes = [...element.attributes].sort((a, b) => (a.name < b.name ? -1 : 1));
      for (const { name } of attributes) element.removeAttribute(name);
      for (const { name, value } of attributes)
        if (name !== "dir") element.setAttribute(name, value);
    }
    return copy.innerHTML;
  };
  for (let end = step; end < text.length + step; end += step) {
    const partial = text.slice(0, end);
    writer.write(partial);
    new StreamingMarkdown(fresh).write(partial);
    const [actual, expected] = [normalise(streamed), normalise(fresh)];
    if (actual !== expected) different.push([partial, actual, expected]);
  }
  complete.append(renderMarkdown(text));
  const finished = writer.finish(text);
  return { different, finished, actual: normalise(streamed), expected: normalise(complete) };
}"""


@pytest.mark.parametrize("step", [1, 2, 7, 1000])
async def test_streamed_markdown_equals_the_text_rendered_at_once(page: Page, step: int) -> None:
    for kind, text in TEXTS.items():
        found = await page.evaluate(COMPARE, [text, step])
        # A definition can change blocks that are finished.
        assert found["finished"] == (kind != "definition")
        if found["finished"]:
            first = json.dumps(found["different"][:1], ensure_ascii=False, indent=1)
            assert found["different"] == [], f"{kind}: {first}"
            assert found["actual"] == found["expected"], kind


@pytest.mark.parametrize(
    ("text", "selector"),
    [
        ("- one\n- two\n- three\n- four", "li"),
        ("1. one\n\n2. two\n\n3. three\n\n4. four", "li"),
        ("| a |\n|---|\n| 1 |\n| 2 |\n| 3 |\n| 4 |", "tbody tr"),
    ],
)
async def test_finished_items_of_a_block_are_not_rendered_again(
    page: Page, text: str, selector: str
) -> None:
    """An item keeps its node once the next item has begun."""
    nodes = await page.evaluate(
        """async ([text, selector]) => {
          const { StreamingMarkdown } = await import("/js/markdown/streaming_markdown.js");
          const body = document.createElement("div");
          const writer = new StreamingMarkdown(body);
          const seen = [];
          for (let end = 1; end <= text.length; end += 1) {
            writer.write(text.slice(0, end));
            const items = [...body.querySelectorAll(selector)];
            items.slice(0, -1).forEach((item, at) => (seen[at] ??= new Set()).add(item));
          }
          writer.finish(text + "\\n");
          const items = [...body.querySelectorAll(selector)];
          return seen.map((nodes, at) => [nodes.size, nodes.has(items[at])]);
        }""",
        [text, selector],
    )
    assert nodes == [[1, True]] * 3


async def test_a_long_inner_list_is_not_rendered_again(page: Page) -> None:
    """The cost of a delta does not grow with the item that it belongs to."""
    lengths = await page.evaluate(
        """async (text) => {
          const { StreamingMarkdown } = await import("/js/markdown/streaming_markdown.js");
          const { Lexer } = await import("/vendor/marked.js");
          const body = document.createElement("div");
          const writer = new StreamingMarkdown(body);
          const blockTokens = Lexer.prototype.blockTokens;
          let longest = 0;
          Lexer.prototype.blockTokens = function (source, ...others) {
            longest = Math.max(longest, source.length);
            return blockTokens.call(this, source, ...others);
          };
          const lengths = [];
          for (let end = 4000; end < text.length; end += 50) {
            longest = 0;
            writer.write(text.slice(0, end));
            lengths.push(longest);
          }
          Lexer.prototype.blockTokens = blockTokens;
          return lengths;
        }""",
        "1. One item\n" + "".join(f"   - item {n} with **bold** and `code`\n" for n in range(400)),
    )
    assert len(lengths) > 100
    assert max(lengths[1:]) < 300


async def test_a_chunked_table_keeps_its_columns(page: Page) -> None:
    """Chunks of about 100 rows are laid out separately; their cells align with the headings."""
    text = "| first | second |\n|---|---:|\n"
    text += "".join(f"| row {n} | {n * n} |\n" for n in range(250))
    text += "| a-word-that-is-longer-than-the-column-can-hold | " + "9" * 80 + " |\n| last | 1 |\n"
    found = await page.evaluate(
        """async (text) => {
          const { StreamingMarkdown } = await import("/js/markdown/streaming_markdown.js");
          const message = document.createElement("div");
          message.className = "message-body";
          document.querySelector("main").append(message);
          const writer = new StreamingMarkdown(message);
          for (let end = 40; end < text.length; end += 40) writer.write(text.slice(0, end));
          writer.finish(text);
          const table = message.querySelector("table");
          const edges = (row) => [...row.cells].flatMap((cell) => {
            const { left, right } = cell.getBoundingClientRect();
            return [Math.round(left), Math.round(right)];
          });
          const cells = [...table.querySelectorAll("td")];
          return {
            chunks: table.tBodies.length,
            rows: table.rows.length,
            aligned: new Set([...table.rows].map((row) => edges(row).join())).size === 1,
            within: cells.every((cell) => cell.scrollWidth <= cell.clientWidth),
          };
        }""",
        text,
    )
    assert found == {"chunks": 3, "rows": 253, "aligned": True, "within": True}


@pytest.mark.parametrize(
    "text",
    [
        "".join(f"- item {n} of *many*\n" for n in range(450)),
        "".join(f"{n}. item\n\n       and more of it\n\n" for n in range(9800, 10_250)) + "End",
        "".join(f"1. item {n}\n   - [x] one within\n   - two\n" for n in range(450)),
    ],
    ids=["tight", "loose", "nested"],
)
async def test_a_chunked_list_looks_like_one_list(page: Page, text: str) -> None:
    """Items have the position and number of a single list, and one cursor is shown at its end."""
    found = await page.evaluate(
        """async (text) => {
          const { StreamingMarkdown } = await import("/js/markdown/streaming_markdown.js");
          const { renderMarkdown } = await import("/js/markdown/render.js");
          const template = document.querySelector("#assistant-message");
          const message = template.content.cloneNode(true).firstElementChild;
          message.dataset.role = "assistant";
          message.toggleAttribute("data-streaming", true);
          message.querySelector(".message-footer").hidden = false;
          document.querySelector("#messages").append(message);
          const body = message.querySelector(".message-body");
          const writer = new StreamingMarkdown(body);
          for (let end = 100; end < text.length; end += 100) writer.write(text.slice(0, end));
          const cursors = [...body.querySelectorAll("*")].filter(
            (element) => getComputedStyle(element, "::after").content !== "none",
          );
          writer.finish(text);
          const lists = body.querySelectorAll(":scope > :is(ul, ol)").length;
          const height = message.offsetHeight;
          const positions = () => {
            const { left, top } = body.getBoundingClientRect();
            return [...body.querySelectorAll("li")].map((item) => {
              const box = item.getBoundingClientRect();
              const number = item.parentNode.start + [...item.parentNode.children].indexOf(item);
              const position = [box.left - left, box.top - top, box.width, box.height];
              return [number, ...position.map(Math.round)].join();
            });
          };
          const chunked = positions();
          body.replaceChildren(renderMarkdown(text));
          const single = positions();
          return {
            lists,
            cursors: cursors.length,
            height: height - message.offsetHeight,
            moved: chunked.filter((position, at) => position !== single[at]),
          };
        }""",
        text,
    )
    assert found == {"lists": 5, "cursors": 1, "height": 0, "moved": []}
