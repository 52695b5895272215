/**
 * Show an unknown entity as text, as a marked extension. HTML parsers also decode the beginning of
 * a name (`&notit;` as `¬it;`); CommonMark and the server do not.
 */

import { Tokenizer } from "../../../vendor/marked.js";

const ENTITY = /&(\w+;)/g;
const MAX_LENGTH = 2; // UTF-16 units of the text of an entity
const MAX_KNOWN = 1000;
const known = new Map(); // the results for entities, as parsing one takes 0.1 ms
const probe = document.createElement("textarea"); // its content is parsed as text with entities

/** The extension, for `Marked.use`. */
export const entities = {
  tokenizer: {
    inlineText(source) {
      const token = Tokenizer.prototype.inlineText.call(this, source);
      if (token) token.text = token.text.replace(ENTITY, escapeUnknown);
      return token;
    },
  },
};

function escapeUnknown(entity, name) {
  if (!known.has(entity)) {
    if (known.size >= MAX_KNOWN) known.clear();
    probe.innerHTML = entity;
    known.set(entity, probe.value.length <= MAX_LENGTH);
  }
  return known.get(entity) ? entity : `&amp;${name}`;
}
