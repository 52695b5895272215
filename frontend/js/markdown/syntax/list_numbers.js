/**
 * Show the numbers of an ordered list as they are written, as a marked extension: a countdown
 * (`3.`, `2.`, `1.`) or a selection (`2.`, `5.`). CommonMark uses the first one and counts from
 * there. Equal numbers (`1.`, `1.`, `1.`) are counted.
 *
 * The server has the same rule in chat/export/list_numbers.py; tests/visible_text.json tests both.
 */

/** The extension, for `Marked.use`. */
export const listNumbers = {
  renderer: {
    list({ ordered, items }) {
      if (ordered) setValues(items);
      return false;
    },
    listitem({ value, tokens }) {
      if (value === undefined) return false;
      return `<li value="${value}">${this.parser.parse(tokens)}</li>\n`;
    },
  },
};

function setValues(items) {
  const numbers = items.map(({ raw }) => parseInt(raw.trimStart(), 10));
  for (const [at, item] of items.entries()) {
    const step = numbers[at] - numbers[at - 1];
    if (at && step !== 0 && step !== 1) item.value = numbers[at];
  }
}
