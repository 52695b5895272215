/**
 * Hide the definition of a link (`[label]: address`) only if a link uses it, as a marked extension.
 * A log line (`[ERROR]: timeout`), a dialogue (`[Ann]: Hello!`) and a footnote (`[^1]: Textbook`)
 * look like definitions too: an address that cannot be opened, and a label with `^`, make text.
 *
 * The server has the same rules in chat/export/definitions.py; tests/visible_text.json tests both.
 */

import { Tokenizer } from "../../../vendor/marked.js";
import { isLinked } from "./addresses.js";

/** The extension, for `Marked.use`; its lexer has a set `usedLinks`. */
export const definitions = {
  tokenizer: {
    def(source) {
      const found = Tokenizer.prototype.def.call(this, source);
      return found && isLinked(found.href) && !found.tag.startsWith("^") ? found : undefined;
    },
    reflink(source, links) {
      let definition;
      const lookUp = (_, label) => (definition = links[label]);
      const watched = new Proxy(links, { get: lookUp });
      const found = Tokenizer.prototype.reflink.call(this, source, watched);
      if (found && definition) this.lexer.usedLinks.add(definition);
      return found;
    },
  },
};

/** Turn the definitions that no link uses into paragraphs; `lexer` has lexed `tokens`. */
export function showUnusedDefinitions(lexer, tokens) {
  const { links } = lexer.tokens;
  if (!Object.keys(links).length) return;
  const unused = [];
  collectUnused(tokens, lexer, new Set(), unused);
  for (const [label, definition] of Object.entries(links))
    if (!lexer.usedLinks.has(definition)) delete links[label];
  for (const token of unused) token.tokens = lexer.inlineTokens(token.text);
}

// Adjacent definitions become one paragraph. The first definition of a label is the one in use.
function collectUnused(tokens, lexer, seen, unused) {
  for (let at = 0; at < tokens.length; at += 1) {
    const token = tokens[at];
    for (const item of token.items ?? []) collectUnused(item.tokens, lexer, seen, unused);
    if (token.type === "def") {
      const isUsed = lexer.usedLinks.has(lexer.tokens.links[token.tag]) && !seen.has(token.tag);
      seen.add(token.tag);
      if (isUsed) continue;
      const before = tokens[at - 1];
      const text = token.raw.trim();
      if (before && before === unused.at(-1)) {
        before.raw += token.raw;
        before.text += `\n${text}`;
        tokens.splice(at, 1);
        at -= 1;
      } else {
        Object.assign(token, { type: "paragraph", text, tokens: [] });
        unused.push(token);
      }
    } else if (token.tokens && token.type !== "paragraph") {
      collectUnused(token.tokens, lexer, seen, unused);
    }
  }
}
