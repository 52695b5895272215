/**
 * Recognise emphasis next to Chinese, Japanese and Korean text, as a marked extension.
 *
 * CommonMark's rules for a closing `**` assume a language with spaces, so `**注意：**正文` stays
 * literal (commonmark-spec#650). This extension gives marked a copy of the text in which such
 * punctuation is replaced by a letter. marked finds the delimiters in the copy, and the emphasised
 * text is taken from the original.
 *
 * The server has the same rule in chat/export/cjk_emphasis.py; tests/cjk_emphasis.json tests both.
 */

import { Tokenizer } from "../../vendor/marked.js";

const LETTER = "中"; // one UTF-16 unit
const SCRIPT =
  String.raw`\p{sc=Han}\p{sc=Hiragana}\p{sc=Katakana}\p{sc=Hangul}\p{sc=Bopomofo}` +
  String.raw`\u3001-\u303F\u30FB\u30FC\uFE30-\uFE4F\uFF01-\uFFEE`;
const CJK_MARK = String.raw`[[\p{P}\p{S}]&&[${SCRIPT}]]`;
const OTHER_MARK = String.raw`[[\p{P}\p{S}]--[*_~${SCRIPT}]]`;
const ADJACENT_MARK = new RegExp(
  String.raw`(?<=[*~])${CJK_MARK}|${CJK_MARK}(?=[*~])` +
    String.raw`|(?<=[${SCRIPT}][*~]{1,8})${OTHER_MARK}|${OTHER_MARK}(?=[*~]{1,8}[${SCRIPT}])`,
  "gv",
);

/** The extension, for `Marked.use`. */
export const cjkEmphasis = {
  hooks: {
    emStrongMask: (masked) =>
      masked.replace(ADJACENT_MARK, ({ length }) => LETTER.repeat(length)),
  },
  tokenizer: {
    emStrong(...position) {
      return tokenize(this, "emStrong", position);
    },
    del(...position) {
      return tokenize(this, "del", position);
    },
  },
};

// marked takes false as "use the built-in tokenizer" and undefined as "no token begins here".
function tokenize(tokenizer, rule, [source, masked, before]) {
  const run = /^(?:\*+|~+)/.exec(source)?.[0].length ?? 0;
  const next = masked[masked.length - source.length + run];
  if (!run || next !== LETTER || source[run] === LETTER) return false;
  const copy = source.slice(0, run) + next + source.slice(run + 1);
  const builtIn = () => Tokenizer.prototype[rule].call(tokenizer, copy, masked, before);
  const found = withoutInlineTokens(tokenizer, builtIn);
  return found && restoreText(tokenizer.lexer, found, source);
}

function withoutInlineTokens(tokenizer, step) {
  const { lexer } = tokenizer;
  tokenizer.lexer = { inlineTokens: () => [] };
  try {
    return step();
  } finally {
    tokenizer.lexer = lexer;
  }
}

function restoreText(lexer, found, source) {
  const raw = source.slice(0, found.raw.length);
  const width = (found.raw.length - found.text.length) / 2;
  const text = raw.slice(width, -width);
  return { ...found, raw, text, tokens: lexer.inlineTokens(text) };
}
