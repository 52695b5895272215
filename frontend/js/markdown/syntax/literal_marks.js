/**
 * Show `~`, `*`, `_` and `>` of ordinary prose as text, as a marked extension. CommonMark would
 * take those of a range (`20~25`), product (`2*3*4`), power (`x**2`), path, name (`__init__`) or
 * comparison (`>= 5`) as markup, and remove them.
 *
 * The server has the same rules in chat/export/literal_marks.py; tests/visible_text.json tests
 * both.
 */

const LETTER = "a"; // replaces a mark in the copy of the text in which marked finds marks
const WORD = "[A-Za-z0-9]";
const NAME = String.raw`(?<!\w)__${WORD}+(?:_+${WORD}+)*__(?!\w)`;
const STARS =
  String.raw`(?<=${WORD})(?<!\*)\*(?=${WORD})|(?<=${WORD})\*{2,}(?=\d)` +
  String.raw`|(?<=\d)\*(?=\()|(?<=[\/\\])\*+(?=[\/\\.])`;
const TILDES = String.raw`(?<!~)~(?!~)|~{3,}|(?<=\d)~~(?=\d)`;
const LITERAL = new RegExp(`${NAME}|${STARS}|${TILDES}`, "g");

// A run of these stars may close emphasis (`**bold**ly`), but not begin it.
const CLOSING = new RegExp(
  String.raw`(?<=${WORD})\*{2,}(?=${WORD})|(?<=[)\]])(?:\*(?=${WORD})|\*{2,}(?=\d))`,
  "y",
);
const COMPARISON = /^ {0,3}>=/;

/** The extension, for `Marked.use`. */
export const literalMarks = {
  hooks: {
    emStrongMask: (masked) => masked.replace(LITERAL, ({ length }) => LETTER.repeat(length)),
  },
  tokenizer: {
    blockquote: (source) => (COMPARISON.test(source) ? undefined : false),
    emStrong: (source, masked) => (canOpen(source, masked) ? false : undefined),
    del: (source, masked) => (canOpen(source, masked) ? false : undefined),
  },
};

// marked takes false as "use the built-in tokenizer" and undefined as "no token begins here".
function canOpen(source, masked) {
  let at = masked.length - source.length;
  const mark = masked[at];
  if (mark !== source[0]) return false;
  if (mark !== "*") return true;
  while (masked[at - 1] === mark) at -= 1;
  CLOSING.lastIndex = at;
  return !CLOSING.test(masked);
}
