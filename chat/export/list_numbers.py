"""Show the numbers of an ordered list as they are written. Pure.

CommonMark uses the first number and counts from there, which changes a countdown (`3.`, `2.`, `1.`)
or a selection (`2.`, `5.`). Equal numbers (`1.`, `1.`, `1.`) are counted.

The web UI has the same rule in frontend/js/markdown/syntax/list_numbers.js;
tests/visible_text.json tests both.
"""

from markdown_it import MarkdownIt
from markdown_it.rules_core import StateCore


def keep_list_numbers(markdown: MarkdownIt) -> None:
    """Make a parser keep the numbers; a plugin for `MarkdownIt.use`."""
    markdown.core.ruler.after("block", "list_numbers", _set_values)


def _set_values(state: StateCore) -> None:
    before: list[int | None] = []  # the last number of each open list
    for token in state.tokens:
        if token.type in ("ordered_list_open", "bullet_list_open"):
            before.append(None)
        elif token.type in ("ordered_list_close", "bullet_list_close"):
            before.pop()
        elif token.type == "list_item_open" and token.info:
            number, last = int(token.info), before[-1]
            if last is not None and number not in (last, last + 1):
                token.attrs["value"] = number
            before[-1] = number
