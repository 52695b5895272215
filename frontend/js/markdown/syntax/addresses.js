/**
 * Decide where an address in prose ends, and what counts as an address, as a marked extension.
 *
 * GFM's bare links end at the next space, so `https://a.example。然后` would swallow a Chinese
 * sentence. Here they end before any mark that is not ASCII, and before the characters that
 * RFC 3986 excludes. `[a](b)` and `<a:b>` are links only if `b` and `a:b` look like addresses.
 *
 * The server has the same rules in chat/export/addresses.py; tests/visible_text.json tests both.
 */

const MAX_LENGTH = 2000; // characters of an address, whose end is searched for
const CJK = String.raw`\u2E80-\u9FFF\uAC00-\uD7AF\uF900-\uFAFF\uFF00-\uFFEF`;
const BARE = new RegExp(
  String.raw`^(?:https?:\/\/|www\.)(?:[\w.%~:\-]+@)?[[\p{L}\p{N}_.\-]--[${CJK}]]+(?::\d+)?` +
    String.raw`(?:[\/?#](?:(?!~~)[[\x21-\x7E]--["<>\\\x60*]]` +
    String.raw`|[[\p{L}\p{N}\p{M}]--[\uFF00-\uFFEF]]){0,${MAX_LENGTH}})?`,
  "iv",
);
const SCHEME = /^(?:[a-z][a-z0-9+.\-]*:\/\/|www\.)/i;
const TRAILING = /(?:&\w+;|[?!.,:;*_'"~])$/;
const OPENING = { ")": "(", "]": "[" };
const LINKED = /^(?:https?:\/\/|mailto:|tel:)/i;
const IN_BRACKETS = /^<(?:[^\s<>:]+@|(?:https?:\/\/|mailto:|tel:))/i;
const WORD_AS_ADDRESS = /^\([ \t\n]*[^\s:\/.#?@()<>]*[ \t\n]*\)/;

/** Return whether a link to this address can be opened. */
export function isLinked(address) {
  return LINKED.test(address);
}

/** The extension, for `Marked.use`. */
export const addresses = {
  tokenizer: {
    url(source) {
      const [found] = BARE.exec(source) ?? [];
      const raw = found && trimEnd(found);
      if (!raw) return SCHEME.test(source) ? undefined : false;
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
      return WORD_AS_ADDRESS.test(parentheses) ? undefined : false;
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
