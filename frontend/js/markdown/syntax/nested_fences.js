/**
 * Find the end of a code block that contains code blocks, as a marked extension. Models give the
 * inner fences the same length. By CommonMark the first of the inner fences would then close the
 * outer block, and the rest of the answer would change between prose and code.
 *
 * A fence with a language cannot close a block: it opens an inner block. In a block of Markdown, so
 * does a bare fence before a line of text, if an empty line or nothing is before it. The next bare
 * fence closes the inner block. If the outer block is never closed by this rule, CommonMark's
 * applies.
 *
 * The server has the same rule in chat/export/nested_fences.py; tests/visible_text.json tests both.
 */

const FENCE = /^( {0,3})(`{3,}(?!`|[^\n]*`)|~{3,}(?!~|[^\n]*~~~))[ \t]*([^\n]*)$/gm;
const OPENING = new RegExp(FENCE.source, "my");
const MARKDOWN = /^(?:markdown|md|mdx)\b/i;
const MAX_FENCES = 100; // of a block in which its end is searched for

/** The extension, for `Marked.use`; its lexer has `isPartial` if the text is still growing. */
export const nestedFences = {
  tokenizer: {
    fences(source) {
      OPENING.lastIndex = 0;
      const [opening, indent, marks, info] = OPENING.exec(source) ?? [];
      if (!opening) return false;
      const { start, end, isOpen } = findEnd(source, opening.length + 1, marks, info);
      if (!end && !(isOpen && this.lexer.isPartial)) return false;
      const text = source.slice(opening.length + 1, end ? Math.max(start - 1, 0) : undefined);
      const indents = new RegExp(`^ {0,${indent.length}}`, "gm");
      return {
        type: "code",
        raw: source.slice(0, end || undefined),
        lang: info.trim(),
        text: text.replace(indents, ""),
      };
    },
  },
};

// Where the line that closes a block with inner blocks starts and ends, or whether it is missing.
function findEnd(source, first, outerMarks, outerInfo) {
  const isMarkdown = MARKDOWN.test(outerInfo);
  let isInside = false;
  let isNested = false;
  let count = 0;
  FENCE.lastIndex = first;
  for (const { index, 0: line, 2: marks, 3: info } of source.matchAll(FENCE)) {
    if (!marks.startsWith(outerMarks)) continue;
    if ((count += 1) > MAX_FENCES) return {};
    const end = index + line.length;
    const opens = info || (isMarkdown && opensInnerBlock(source, index, end, first));
    if (isInside) isInside = Boolean(info);
    else if (opens) isInside = isNested = true;
    else return isNested ? { start: index, end } : {};
  }
  return { isOpen: isNested };
}

function opensInnerBlock(source, start, end, first) {
  const before = start > first ? source.slice(source.lastIndexOf("\n", start - 2) + 1, start) : "";
  const next = source.indexOf("\n", end + 1);
  const after = source.slice(end + 1, next < 0 ? undefined : next);
  return !before.trim() && after.trim();
}
