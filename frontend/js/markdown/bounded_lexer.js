/**
 * marked's lexer with limits, because a hostile text can make marked overflow its stack or take
 * minutes. Deeper quotes, lists and emphasis are text. The server has the same limit in
 * chat/export/nesting.py.
 */

import { Lexer, Tokenizer } from "../../vendor/marked.js";
import { skipOnlyLinks } from "./syntax/addresses.js";
import { showUnusedDefinitions } from "./syntax/definitions.js";
import { changeBlockStarts } from "./syntax/block_starts.js";
import { checkTime } from "./time_limit.js";

const MAX_NESTING = 30; // levels of quotes and lists, and levels of emphasis within a block
const MAX_INLINE_LENGTH = 20_000; // characters of a block; a longer one is text
const MAX_EMPTY_CELLS = 10_000; // of a table: a short row is completed with empty cells

export class BoundedLexer extends Lexer {
  containers = 0; // the quotes and lists around the current block
  spans = -1; // the emphasis and links around the current text
  usedLinks = new Set(); // the definitions that a link uses
  inlineSource = ""; // the text that contains the current span

  constructor(options, isPartial) {
    super(options);
    options.tokenizer.rules = skipOnlyLinks(changeBlockStarts(options.tokenizer.rules));
    this.isPartial = isPartial;
  }

  lex(source) {
    const tokens = super.lex(source);
    showUnusedDefinitions(this, tokens);
    return tokens;
  }

  inlineTokens(source, tokens = []) {
    if (source.length > MAX_INLINE_LENGTH) {
      tokens.push({ type: "text", raw: source, text: source });
      return tokens;
    }
    const outerSource = this.inlineSource;
    this.inlineSource = source;
    this.spans += 1;
    try {
      return super.inlineTokens(source, tokens);
    } finally {
      this.spans -= 1;
      this.inlineSource = outerSource;
    }
  }
}

/**
 * The extension that BoundedLexer needs, for `Marked.use`. marked takes false as "use the built-in
 * tokenizer" and undefined as "no token begins here".
 */
export const limits = {
  tokenizer: {
    // marked tries these two first, at every block and at every span.
    space: () => checkTime() ?? false,
    escape: () => checkTime() ?? false,
    blockquote(source) {
      return enterContainer(this, "blockquote", source);
    },
    list(source) {
      return enterContainer(this, "list", source);
    },
    emStrong() {
      return this.lexer.spans >= MAX_NESTING ? undefined : false;
    },
    del() {
      return this.lexer.spans >= MAX_NESTING ? undefined : false;
    },
    table: (source) => (isSparse(source) ? undefined : false),
  },
};

function enterContainer(tokenizer, rule, source) {
  const { lexer } = tokenizer;
  if (lexer.containers >= MAX_NESTING) return undefined;
  lexer.containers += 1;
  try {
    return Tokenizer.prototype[rule].call(tokenizer, source);
  } finally {
    lexer.containers -= 1;
  }
}

// A table of n columns and n short rows has n² cells.
function isSparse(source) {
  const columns = count(source.slice(0, source.indexOf("\n")), "|");
  if (columns < 2) return false;
  const end = source.indexOf("\n\n");
  const table = end < 0 ? source : source.slice(0, end);
  return columns * count(table, "\n") - count(table, "|") > MAX_EMPTY_CELLS;
}

function count(text, character) {
  let found = 0;
  for (let at = text.indexOf(character); at >= 0; at = text.indexOf(character, at + 1)) found += 1;
  return found;
}
