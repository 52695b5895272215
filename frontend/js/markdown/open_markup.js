/**
 * Show text that is still growing. Every letter and digit is shown, except those of an address or
 * the language of a code block. Marks that are still ambiguous (a single `-`, half a fence) are
 * withheld for a moment, and markup that is still open is closed, so that nothing shown disappears.
 */

import { lex } from "./render.js";
import { isLinked } from "./syntax/addresses.js";
import { countCells } from "./syntax/tables.js";

const UNDECIDED_LINE = /^(?:[-+*=_#|:`~>\s]*|\s*(?:`{3,}[^`]*|~{3}.*))$/;
const UNDECIDED_NUMBER = /^(\s*\d{1,9})[.)]?\s*$/; // of a list item
const UNDECIDED_MARK = /[*`~]|[^\S\n]/;
const CODE_LIKE_FENCE = /^[\s>\-+*\d.)]*(`{3,})(?!`)[^`]+\1/;
const ITEM = /^\s*(?:[-+*]|\d{1,9}[.)])\s/;
const ORDERED_ITEM = /^\s*\d{1,9}[.)]\s/;
const LETTER = /[\p{L}\p{N}]/u;
const TABLE_ROW = /^\s*\|/;
const HALF_LINK = /!?\[([^[\]\n]*)\]\(([^()\s]*)(?:[ \t]+["']([^"'\n]*))?$/;
const SCHEMES = ["https://", "http://", "mailto:", "tel:"];
const CODE_SPAN = /(`+)(?!`)[^\n]*?[^`]\1(?!`)/g;
const PROSE = new Set(["paragraph", "heading", "text"]);
const MAX_OPEN_LENGTH = 20_000; // characters of a block whose open markup is closed

/** Split a growing text into blocks, without the undecided end of the text. */
export function lexOpen(text) {
  const decided = trimUndecided(text);
  const withheld = text.slice(decided.length).trim();
  if (LETTER.test(withheld)) {
    const tokens = lex(text, true);
    const last = findLastBlock(tokens.at(-1));
    if (last?.type === "code" && last.text.trimEnd().endsWith(withheld)) return tokens;
  }
  return lex(decided, true);
}

function trimUndecided(text) {
  const lines = trimMarks(text).split("\n");
  const last = lines.pop();
  const earlier = lines.join("\n");
  if (UNDECIDED_LINE.test(last)) return earlier;
  const [, number] = UNDECIDED_NUMBER.exec(last) ?? [];
  if (number && ORDERED_ITEM.test(findOuterLine(lines, number))) return earlier;
  return [...lines, number ?? last].join("\n");
}

// The last line before a number that begins an item or a block, and is not indented deeper.
function findOuterLine(lines, number) {
  const indent = number.search(/\d/);
  const begins = (line, at) => ITEM.test(line) || (line.trim() && !lines[at - 1]?.trim());
  return lines.findLast((line, at) => begins(line, at) && line.search(/\S/) <= indent) ?? "";
}

function trimMarks(text) {
  if (CODE_LIKE_FENCE.test(text.slice(text.lastIndexOf("\n") + 1))) return text;
  let end = text.length; // a regular expression would try each of the marks as the first one
  while (end && UNDECIDED_MARK.test(text[end - 1])) end -= 1;
  return text.slice(0, end);
}

/**
 * Return the last block as it looks if its text ends here: bold text, code spans and links look
 * like that as soon as they begin, and the first row of a table is one.
 */
export function closeOpenMarkup(token) {
  const { type } = findLastBlock(token) ?? {};
  if (!PROSE.has(type) || token.raw.length > MAX_OPEN_LENGTH) return [token];
  if (type === "paragraph" && token.type === type && hasFirstRow(token.raw)) {
    const row = token.raw.slice(token.raw.lastIndexOf("\n") + 1);
    return lex(`${token.raw}\n${"|-".repeat(countCells(row))}|`, true);
  }
  const raw = token.raw.replace(HALF_LINK, closeLink);
  const line = raw.slice(raw.lastIndexOf("\n") + 1).replace(CODE_SPAN, "");
  const ending = line.includes("`") ? "`" : isOdd(line, /\*\*/g) ? "**" : "";
  const closed = ending && closeWith(raw, ending);
  if (closed || raw === token.raw) return [closed || token];
  return lex(raw.trimEnd(), true).slice(0, 1);
}

function closeLink(half, words, address, title) {
  if (!isLinked(address) && !SCHEMES.some((scheme) => scheme.startsWith(address))) return half;
  return title ? `${words} (${title}` : words;
}

function closeWith(raw, ending) {
  const [closed] = lex(raw.trimEnd() + ending, true);
  const last = findLast(closed);
  return last?.type === "text" && last.raw.endsWith(ending) ? null : closed;
}

function hasFirstRow(raw) {
  const [last, before = ""] = raw.split("\n").reverse();
  return TABLE_ROW.test(last) && !TABLE_ROW.test(before);
}

// The last block within quotes and lists.
function findLastBlock(token) {
  const inner = token?.type === "list" ? token.items.at(-1) : token;
  const isContainer = token?.type === "list" || token?.type === "blockquote";
  const last = isContainer && inner.tokens.findLast(({ type }) => type !== "space");
  return last ? findLastBlock(last) : token;
}

function findLast(token) {
  const last = (token?.items?.at(-1) ?? token)?.tokens?.at(-1);
  return last ? findLast(last) : token;
}

function isOdd(line, mark) {
  return (line.match(mark)?.length ?? 0) % 2 === 1;
}
