/**
 * Show `~`, `*` and `_` of ordinary prose as text, as a marked extension. CommonMark would take
 * those of a range (`20~25`), product (`2*3*4`), power (`x**2`), path, pattern (`*.*`), comment or
 * name (`__init__`) as markup, and remove them.
 *
 * The server has the same rules in chat/export/literal_marks.py; tests/visible_text.json tests
 * both.
 */

const TEXT = "+"; // replaces a mark in the copy of the text in which marked finds marks
const LINK = "a"; // fills a link in this copy
const WORD = "[A-Za-z0-9]";
// Chinese, Japanese, Korean, Thai, Lao, Tibetan, Burmese and Khmer emphasise within a line
// without spaces.
const UNSPACED =
  String.raw`\u0E00-\u11FF\u1780-\u17FF\u2E80-\u9FFF\uA960-\uA97F\uAC00-\uD7FF\uF900-\uFAFF` +
  String.raw`\uFF66-\uFFDC\u{20000}-\u{3FFFF}`;
const FACTOR = String.raw`[[\p{L}\p{N}]--[${UNSPACED}]]`;
// A number above or below the line belongs to the factor before it: `*R*²`.
const NEXT_FACTOR = String.raw`(?![²³¹\u2070-\u209F])${FACTOR}|[\u2200-\u22FF]`;
const OPENING = String.raw`[\(\[\{（【]`;
const AFTER_FACTOR = String.raw`[\)\]\}）】”’′″%‰°℃$€£¥￥]`;
const BEFORE_END = String.raw`[*_](?=[,.;:?\)\]\}=>\|，。；：？、）】”’」』》])`;
const START = String.raw`[\(\[\{=\|,;:（【“‘「『，、；：]`;
const NAME = String.raw`(?<!\w)__${WORD}+(?:_+${WORD}+)*__(?!\w)`;
const PRODUCT =
  String.raw`(?<=${FACTOR})(?<!\*)\*(?=${NEXT_FACTOR})|(?<=${WORD})\*{2,}(?=\d)` +
  String.raw`|(?<=\d)\*(?=[\(（])|(?<=[）】])\*(?=${FACTOR})`;
const PATH = String.raw`(?<=[\/\\])\*+(?=[\/\\.])|(?<=\*\.)\*(?!\*)`;
const COMMENT =
  String.raw`(?<![^\s"'\x60\(\[])\*+(?=\/(?![^\s*"'\x60\)\]]))|(?<=(?<![^\s\(\{\};,，；])\/)\*+`;
const VALUE = // `"*"`, `(*)`, `(_, x)`, `$_`
  String.raw`(?<=([!-'+-\/:-@\^\|~]))\*+(?=\1)|(?<=${START})${BEFORE_END}` +
  String.raw`|(?<=\$)_`;
const TILDES = String.raw`(?<!~)~(?!~)|~{3,}|(?<=\d)~~(?=\d)`;
const LITERAL = new RegExp([NAME, PRODUCT, PATH, COMMENT, VALUE, TILDES].join("|"), "gv");

// A run of these marks may close emphasis (`**bold**ly`), but not begin it.
const CLOSING = new RegExp(
  [
    String.raw`(?<=${WORD})\*{2,}(?=${WORD})|(?<=[\)\]\}])\*{2,}(?=\d)`, // `(x+1)**2`
    String.raw`(?<=${AFTER_FACTOR})\*(?=[\-+]?${FACTOR}|${OPENING}|[\u2200-\u22FF$€£¥￥])`, // `)*x`
    String.raw`(?<=${FACTOR})\*(?=${OPENING})|(?<=\d\p{L}{1,2})\*(?=\d)`, // `x*(`, `2箱*3`
    String.raw`(?<=\x60)\*(?=\x60)|(?<=\/)\*+(?=["'\x60\)\],;，。；、）])`, // `src/**,`
    String.raw`(?<=\.)\*(?=[!-\)+-~])|${BEFORE_END}`, // `.*x`, `_.map`
  ].join("|"),
  "vy",
);

/** The extension, for `Marked.use`; its lexer has the text around the current span. */
export const literalMarks = {
  hooks: {
    emStrongMask: (masked) => masked.replace(LITERAL, ({ length }) => TEXT.repeat(length)),
  },
  tokenizer: {
    emStrong(source, masked) {
      return canOpen(source, masked, this.lexer.inlineSource) ? false : undefined;
    },
    del: (source, masked) => (masked.at(-source.length) === source[0] ? false : undefined),
  },
};

// marked takes false as "use the built-in tokenizer" and undefined as "no token begins here".
function canOpen(source, masked, text) {
  let at = masked.length - source.length;
  const mark = masked[at];
  if (mark !== source[0]) return false;
  while (masked[at - 1] === mark) at -= 1;
  if (isAfterLink(text, masked, at)) return true;
  CLOSING.lastIndex = at;
  return !CLOSING.test(text);
}

// In `masked`, links are `[aaa]`. The bracket at the end of a link is not one of the text.
function isAfterLink(text, masked, at) {
  const isMasked = (back) => masked[at - back] === LINK && text[at - back] !== LINK;
  return isMasked(2) || (masked[at - 2] === LINK && isMasked(3));
}
