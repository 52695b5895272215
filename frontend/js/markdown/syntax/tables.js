/**
 * Keep the text of every cell of a table, as a marked extension. A row with more cells than columns
 * usually has an unescaped `|`. A `|` in code then belongs to the code. Further cells are joined to
 * the last one. `<br>` is the only line break a cell can have.
 *
 * The server has the same rules in chat/export/tables.py; tests/visible_text.json tests both.
 */

import { Renderer, Tokenizer } from "../../../vendor/marked.js";

const LINE_BREAK = /^<br\s*\/?>/i;
const PIPE = /\\[\s\S]|\|/g;
const CODE = /(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)/g;

let isCell = false; // while a cell is rendered

/** The extension, for `Marked.use`. */
export const tables = {
  extensions: [
    { name: "lineBreak", renderer: ({ raw }) => (isCell ? "<br>" : raw.replace("<", "&lt;")) },
  ],
  renderer: {
    tablecell(token) {
      isCell = true;
      try {
        return Renderer.prototype.tablecell.call(this, token);
      } finally {
        isCell = false;
      }
    },
  },
  tokenizer: {
    table(source) {
      const [table] = this.rules.block.table.exec(source) ?? [];
      if (!table) return false;
      const [header, alignment, ...rows] = table.split("\n");
      const columns = countCells(header);
      if (!rows.some((row) => countCells(row) > columns)) return false;
      const fitted = [header, alignment, ...rows.map((row) => fitRow(row, columns))].join("\n");
      const found = Tokenizer.prototype.table.call(this, fitted);
      return found && { ...found, raw: table.replace(/\n+$/, "") };
    },
    tag(source) {
      const [raw] = LINE_BREAK.exec(source) ?? [];
      return raw && { type: "lineBreak", raw };
    },
  },
};

/** Return the number of cells of a row. */
export function countCells(row) {
  const cells = row.trim().replace(/^\|/, "");
  const pipes = [...cells.matchAll(PIPE)].filter(([mark]) => mark === "|");
  return pipes.at(-1)?.index === cells.length - 1 ? pipes.length : pipes.length + 1;
}

/** Escape the pipes of a row that are not between two of its `columns` cells. */
function fitRow(row, columns) {
  if (countCells(row) <= columns) return row;
  const withCode = row.replace(CODE, (code) => code.replace(PIPE, escapePipe));
  let left = columns - (row.trimStart().startsWith("|") ? 0 : 1);
  const end = withCode.replace(/\|\s*$/, "").length;
  return withCode.replace(PIPE, (mark, at) =>
    mark === "|" && at < end && (left -= 1) < 0 ? "\\|" : mark,
  );
}

function escapePipe(mark) {
  return mark === "|" ? "\\|" : mark;
}
