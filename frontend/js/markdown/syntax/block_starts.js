/**
 * Decide which lines begin a block, and so end a paragraph or a list, as a marked extension. These
 * do not: HTML, a comparison (`>= 5`, `>18`), a line between fences (`~~~x~~~`), and a line without
 * a pipe above the rule of a table.
 *
 * The expressions are private to marked: if an upgrade changes them, cases of
 * tests/visible_text.json fail. The server has the same rules in chat/export/literal_marks.py and
 * nested_fences.py, and by its parser.
 */

const COMPARISON = "(?:=|[\\-+~±.$¥€£￥]?[0-9０-９])";
// The rule of a quote itself has a space after `>`: in a quote, `>18` continues it.
const CHANGES = [
  [/\| \{0,3\}\(\?:<\\?\/\?\(\?:address\|.*?CDATA\\\[\)/g, ""],
  [/( \{0,\d\}>)(?! )/g, `$1(?!${COMPARISON})`],
  [/\(\?:```\|/g, "(?:`{3,}(?=[^`\\n]*(?:\\n|$))|"],
  [/\|~(?:~~|\{3,\})\)/g, String.raw`|~{3,}(?!~|[^\n]*~~~))`],
  [/(?=\(\[\^\\n \]\.\*\)\\n \{0,3\}\(\(\?:\\\|)/g, String.raw`(?=[^\n]*\|)`],
];
const COMPARED_LINE = new RegExp(`^ {0,3}>${COMPARISON}`);
const NEVER = /(?!)/;

/** The extension, for `Marked.use`. */
export const blockStarts = {
  tokenizer: {
    html: () => undefined,
    blockquote: (source) => (COMPARED_LINE.test(source) ? undefined : false),
  },
};

/** Return the rules of a lexer, by which these lines do not end other blocks. */
export function changeBlockStarts({ other, block, inline }) {
  const { blockquoteBeginRegex, fencesBeginRegex } = other;
  const changed = Object.entries(block).map(([name, rule]) => [name, change(rule)]);
  return {
    other: {
      ...other,
      htmlBeginRegex: () => NEVER,
      blockquoteBeginRegex: (indent) => change(blockquoteBeginRegex(indent)),
      fencesBeginRegex: (indent) => change(fencesBeginRegex(indent)),
    },
    block: Object.fromEntries(changed),
    inline,
  };
}

const cache = new Map(); // the changed expressions by the original ones

function change(rule) {
  if (!rule.source) return rule;
  if (!cache.has(rule)) {
    const replace = (source, [found, replacement]) => source.replace(found, replacement);
    cache.set(rule, new RegExp(CHANGES.reduce(replace, rule.source), rule.flags));
  }
  return cache.get(rule);
}
