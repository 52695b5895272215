/**
 * Decide where an address in prose ends, and what counts as an address, as a marked extension.
 *
 * GFM's bare links end at the next space, so `https://a.example。然后` would swallow a Chinese
 * sentence. Here they end before any mark that is not ASCII, and before the characters that
 * RFC 3986 excludes. `[a](b)` and `<b>` are links only if the address `b` can be opened; else they
 * are text.
 *
 * The server has the same rules in chat/export/addresses.py; tests/visible_text.json tests both.
 */

import { Lexer } from "../../../vendor/marked.js";

const MAX_LENGTH = 2000; // characters of an address, whose end is searched for
const CJK = String.raw`\u2E80-\u9FFF\uAC00-\uD7AF\uF900-\uFAFF\uFF00-\uFFEF`;
const BARE = new RegExp(
  String.raw`^(?:https?:\/\/|www\.)(?:[\w.%~:\-]{1,200}@)?[[\p{L}\p{N}_.\-]--[${CJK}]]+(?::\d+)?` +
    String.raw`(?:[\/?#](?:(?!~~)[[\x21-\x7E]--["<>\\\x60*]]` +
    String.raw`|[[\p{L}\p{N}\p{M}]--[\uFF00-\uFFEF]]){0,${MAX_LENGTH}})?`,
  "iv",
);
const SCHEME = /^(?:[a-z][a-z0-9+.\-]*:\/\/|www\.)/i;
const TRAILING = /(?:&\w+;|[?!.,:;*_'"~])$/;
const OPENING = { ")": "(", "]": "[" };
const LINKED = /^(?:https?:\/\/|mailto:|tel:)/i;
const IN_BRACKETS = /^<(?:[^\s<>:]+@|(?:https?:\/\/|mailto:|tel:))/i;
const IN_PARENTHESES = /\((?=[ \t\n]*<?(?:https?:\/\/|mailto:|tel:))/i.source;
const LINKED_IN_PARENTHESES = new RegExp(`^${IN_PARENTHESES}`, "i");

// Links, code and HTML, which marked skips when it looks for emphasis. The expression is private to
// marked: if an upgrade changes it, the cases of tests/visible_text.json with `[*b*](` fail.
const { source: SKIPPED } = Lexer.rules.inline.breaks.blockSkip;
const blockSkip = new RegExp(SKIPPED.replace(String.raw`?\]\(`, `?\\]${IN_PARENTHESES}`), "gi");

/** Return whether a link to this address can be opened. */
export function isLinked(address) {
  return LINKED.test(address);
}

/** Return the rules of a lexer, by which `[a](b)` has emphasis if it is not a link. */
export function skipOnlyLinks({ inline, ...others }) {
  return { ...others, inline: { ...inline, blockSkip } };
}

/** The extension, for `Marked.use`. */
export const addresses = {
  tokenizer: {
    url(source) {
      const [found] = BARE.exec(source) ?? [];
      const raw = found && trimEnd(found);
      if (!raw) return SCHEME.test(source) || source.startsWith("xmpp:") ? undefined : false;
      const href = /^www/i.test(raw) ? `http://${raw}` : raw;
      const tokens = [{ type: "text", raw, text: raw }];
      return { type: "link", raw, text: raw, href, autolink: true, tokens };
    },
    autolink: (source) => (IN_BRACKETS.test(source) ? false : undefined),
    link(source) {
      if (!this.lexer.state.linkParenPossible || !/^!?\[/.test(source)) return undefined;
      const [all, label] = this.rules.inline.link.exec(source) ?? [];
      if (all === undefined) return undefined;
      const parentheses = all.slice(all.indexOf("[") + label.length + 2);
      return LINKED_IN_PARENTHESES.test(parentheses) ? false : undefined;
    },
  },
};

// The end of a sentence does not belong to an address, nor does a bracket that began before it.
function trimEnd(address) {
  let end = address;
  for (;;) {
    const last = end.at(-1);
    const cut = TRAILING.exec(end)?.[0].length ?? (isUnbalanced(end, OPENING[last], last) ? 1 : 0);
    if (!cut) return SCHEME.exec(end)?.[0].length < end.length ? end : "";
    end = end.slice(0, -cut);
  }
}

function isUnbalanced(text, opening, closing) {
  return opening && text.split(closing).length > text.split(opening).length;
}
