/**
 * Show HTML as text, as a marked extension. marked ends a paragraph, a list or a table before a
 * line that begins with HTML, even if HTML is text; the server does not. The expressions are
 * private to marked: if an upgrade changes them, the cases of tests/visible_text.json with `<div>`
 * fail.
 */

const INTERRUPTION = /\| \{0,3\}\(\?:<\\?\/\?\(\?:address\|.*?CDATA\\\[\)/g;
const NEVER = /(?!)/;

/** The extension, for `Marked.use`. */
export const htmlAsText = { tokenizer: { html: () => undefined } };

/** Return the rules of a lexer, by which HTML does not end other blocks. */
export function ignoreHtml({ other, block, inline }) {
  return {
    other: { ...other, htmlBeginRegex: () => NEVER },
    block: { ...block, ...withoutInterruption(block) },
    inline,
  };
}

const cache = new Map();

function withoutInterruption(block) {
  if (!cache.has(block)) {
    const rules = Object.entries(block).filter(([, { source }]) => source?.match(INTERRUPTION));
    const changed = rules.map(([name, { source, flags }]) => [
      name,
      new RegExp(source.replace(INTERRUPTION, ""), flags),
    ]);
    cache.set(block, Object.fromEntries(changed));
  }
  return cache.get(block);
}
