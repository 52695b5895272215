/**
 * Decide which lines begin a block, and so end a paragraph or a list, as a marked extension. HTML
 * and a comparison (`>= 5`, `>18`) do not.
 *
 * The expressions are private to marked: if an upgrade changes them, cases of
 * tests/visible_text.json fail. The server has the same rules in chat/export/literal_marks.py and
 * by its parser.
 */

const COMPARISON = "(?:=|[\\-+~±.$¥€£￥]?[0-9０-９])";
// The rule of a quote itself has a space after `>`: in a quote, `>18` continues it.
const CHANGES = [
  [/\| \{0,3\}\(\?:<\\?\/\?\(\?:address\|.*?CDATA\\\[\)/g, ""],
  [/( \{0,\d\}>)(?! )/g, `$1(?!${COMPARISON})`],
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
  const { blockquoteBeginRegex } = other;
  const changed = Object.entries(block).map(([name, rule]) => [name, change(rule)]);
  return {
    other: {
      ...other,
      htmlBeginRegex: () => NEVER,
      blockquoteBeginRegex: (indent) => change(blockquoteBeginRegex(indent)),
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
