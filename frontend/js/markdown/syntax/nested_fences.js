/**
 * Find the end of a Markdown code block that contains code blocks, as a marked extension. Models
 * give the inner fences the same length. By CommonMark the first of the inner fences would then
 * close the outer block, and the rest of the answer would change between prose and code.
 *
 * In a block of Markdown, two kinds of fence open an inner block: one with a language, and a bare
 * one before a line of text, if an empty line or nothing is before it. The next bare fence closes
 * the inner block. If the outer block is never closed by this rule, CommonMark's applies.
 *
 * The server has the same rule in chat/export/nested_fences.py; tests/visible_text.json tests both.
 */

const OPENING = /^ {0,3}(`{3,}|~{3,}) *(?:markdown|md|mdx)\b[^`\n]*\n/i;
const FENCE = /^ {0,3}(`{3,}|~{3,})[ \t]*(\S[^`]*)?$/;
const MAX_LINES = 1000; // of a block in which its end is searched for

/** The extension, for `Marked.use`; its lexer has `isPartial` if the text is still growing. */
export const nestedFences = {
  tokenizer: {
    fences(source) {
      const [opening, fence] = OPENING.exec(source) ?? [];
      if (!opening) return false;
      const lines = source.slice(opening.length).split("\n", MAX_LINES);
      const { end, isNested } = findEnd(lines, fence);
      const isOpen = end < 0 && this.lexer.isPartial && lines.length < MAX_LINES;
      if (!isNested || (end < 0 && !isOpen)) return false;
      const last = isOpen ? lines.length : end;
      const raw = opening + lines.slice(0, last + 1).join("\n");
      const indent = new RegExp(`^ {0,${opening.indexOf(fence)}}`);
      const text = lines.slice(0, last).map((line) => line.replace(indent, "")).join("\n");
      return { type: "code", raw, lang: opening.trim().slice(fence.length).trim(), text };
    },
  },
};

// The number of the line that closes the block, or -1, and whether an inner block was found.
function findEnd(lines, fence) {
  let isInside = false;
  let isNested = false;
  for (const [at, line] of lines.entries()) {
    const [, marks, info] = FENCE.exec(line) ?? [];
    if (!marks?.startsWith(fence)) continue;
    const isOpening = info || (!lines[at - 1]?.trim() && lines[at + 1]?.trim());
    if (isInside) isInside = Boolean(info);
    else if (isOpening) isInside = isNested = true;
    else return { end: at, isNested };
  }
  return { end: -1, isNested };
}
