/**
 * Emphasis beside Chinese, Japanese and Korean text, as a marked extension.
 *
 * CommonMark lets `**` close only where the characters around it look right for a language with spaces, so
 * `**注意：**正文` stays literal (commonmark-spec#650). We show marked a copy of the text in which the punctuation
 * at such a place is a letter; it judges the delimiters on the copy, and the words are taken from the text.
 */

import { Tokenizer } from "/vendor/marked.js";

const LETTER = "中"; // one UTF-16 unit, like all that it stands for
const SCRIPT =
  String.raw`\p{sc=Han}\p{sc=Hiragana}\p{sc=Katakana}\p{sc=Hangul}\p{sc=Bopomofo}` +
  String.raw`\u3001-\u303F\u30FB\u30FC\uFE30-\uFE4F\uFF01-\uFFEE`;
const CJK_MARK = String.raw`[[\p{P}\p{S}]&&[${SCRIPT}]]`;
const OTHER_MARK = String.raw`[[[\p{P}\p{S}]&&[\u0000-\uFFFF]]--[*_~${SCRIPT}]]`;
const BESIDE = new RegExp(
  String.raw`(?<=[*~])${CJK_MARK}|${CJK_MARK}(?=[*~])` +
    String.raw`|(?<=[${SCRIPT}][*~]{1,8})${OTHER_MARK}|${OTHER_MARK}(?=[*~]{1,8}[${SCRIPT}])`,
  "gv",
);

/** The extension, for `Marked.use`. */
export const cjkEmphasis = {
  hooks: { emStrongMask: (masked) => masked.replace(BESIDE, LETTER) },
  tokenizer: {
    emStrong(...place) {
      return judge(this, "emStrong", place);
    },
    del(...place) {
      return judge(this, "del", place);
    },
  },
};

// False hands the place to marked's own tokenizer, undefined says that nothing begins here.
function judge(tokenizer, rule, [source, masked, before]) {
  const run = /^(?:\*+|~+)/.exec(source)?.[0].length ?? 0;
  const next = masked[masked.length - source.length + run];
  if (!run || next !== LETTER || source[run] === LETTER) return false;
  const copy = source.slice(0, run) + next + source.slice(run + 1);
  const found = lexNothing(tokenizer, () => Tokenizer.prototype[rule].call(tokenizer, copy, masked, before));
  return found && fromSource(tokenizer.lexer, found, source);
}

function lexNothing(tokenizer, step) {
  const { lexer } = tokenizer;
  tokenizer.lexer = { inlineTokens: () => [] };
  try {
    return step();
  } finally {
    tokenizer.lexer = lexer;
  }
}

function fromSource(lexer, found, source) {
  const raw = source.slice(0, found.raw.length);
  const width = (found.raw.length - found.text.length) / 2;
  const text = raw.slice(width, -width);
  return { ...found, raw, text, tokens: lexer.inlineTokens(text) };
}
