"""Keep the text of every cell of a table. Pure.

A row with more cells than columns usually has an unescaped `|`. A `|` in code then belongs to the
code. Further cells are joined to the last one. `<br>` is the only line break a cell can have.

The web UI has the same rules in frontend/js/markdown/syntax/tables.js; tests/visible_text.json
tests both.
"""

import re
from collections.abc import Iterator

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock, table
from markdown_it.rules_core import StateCore
from markdown_it.token import Token

_PIPE = re.compile(r"\\.|\|")
_CODE = re.compile(r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)")
_LINE_BREAK = re.compile(r"(<br\s*/?>)", re.IGNORECASE)


def keep_cells(markdown: MarkdownIt) -> None:
    """Make a parser keep all cells; a plugin for `MarkdownIt.use`."""
    markdown.block.ruler.at("table", _parse_table, {"alt": ["paragraph", "reference"]})
    markdown.core.ruler.after("inline", "cell_breaks", _break_cells)


def _parse_table(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    first = len(state.tokens)
    if not table(state, start, end, silent):
        return False
    rows = _group_cells(state.tokens[first:])
    for (line, _), cells in rows.items():
        text = state.src[state.bMarks[line] + state.tShift[line] : state.eMarks[line]].strip()
        pieces = _split_row(text)
        if len(pieces) > len(cells):
            text = _CODE.sub(lambda code: _PIPE.sub(_escape_pipe, code[0]), text)
            pieces = _split_row(text, len(cells))
        # The parser takes the second backslash of `\\|` as an escape of the pipe.
        for cell, piece in zip(cells, pieces, strict=False):
            cell.content = piece
    return True


def _group_cells(tokens: list[Token]) -> dict[tuple[int, int], list[Token]]:
    """Return the contents of the cells by the lines of their rows."""
    rows: dict[tuple[int, int], list[Token]] = {}
    for token in tokens:
        if token.type == "inline" and token.map:
            rows.setdefault((token.map[0], token.map[1]), []).append(token)
    return rows


def _split_row(row: str, columns: int = 0) -> list[str]:
    """Return the cells of a row; the last of `columns` contains the rest of the row."""
    row = row.removeprefix("|")
    pieces: list[str] = []
    done = 0
    for found in _PIPE.finditer(row):
        if found[0] == "|" and len(pieces) + 1 != columns:
            pieces.append(row[done : found.start()])
            done = found.end()
    rest = row[done:]
    if rest.strip() or columns:
        pieces.append(rest.strip().removesuffix("|"))
    return [_PIPE.sub(_unescape_pipe, piece.strip()) for piece in pieces]


def _escape_pipe(mark: re.Match[str]) -> str:
    return "\\|" if mark[0] == "|" else mark[0]


def _unescape_pipe(mark: re.Match[str]) -> str:
    return mark[0].replace("\\|", "|")


def _break_cells(state: StateCore) -> None:
    for before, token in zip(state.tokens, state.tokens[1:], strict=False):
        if before.type in ("td_open", "th_open"):
            token.children = list(_break_lines(token.children or []))


def _break_lines(children: list[Token]) -> Iterator[Token]:
    for token in children:
        if token.type != "text":
            yield token
            continue
        for at, text in enumerate(_LINE_BREAK.split(token.content)):
            if at % 2:
                yield Token("hardbreak", "br", 0)
            elif text:
                yield Token("text", "", 0, content=text)
