/**
 * Markdown that is still being written, in time linear in its length: blocks that can change no more keep
 * their nodes; only the last one is rendered again. What is not decided yet (a lone `-`, half a fence, a
 * table's first row) is held back for a moment, so that nothing is shown and then taken away.
 */

import { lex, renderTokens } from "./markdown.js";

const UNDECIDED_LINE = /^(?:[-+*=_#|:`~>\s]*|\s*\d{1,9}[.)]?\s*|\s*(?:`{3}|~{3}).*)$/;
const ROW = /^\s*\|/;
const UNDECIDED_END = /[*`~]+$/;
const HALF_LINK = /!?\[([^[\]\n]*)\]\([^()\n]*$/;
const CODE_SPAN = /(`+)(?!`)[^\n]*?[^`]\1(?!`)/g;
const DEFINITION = /^ {0,3}(?:[>\-+*\d.) \t]*)\[[^\]\n]+\]:/m;
const PROSE = new Set(["paragraph", "heading", "list", "blockquote"]);

export class StreamingMarkdown {
  #body;
  #text = "";
  #done = 0; // characters whose blocks are finished
  #tail = []; // the last block's nodes
  #openCode = null; // its <code>, when it is one

  constructor(body) {
    this.#body = body;
    this.#body.replaceChildren();
  }

  /** Shows the text so far; a text that does not go on from the last one is begun anew. */
  write(text) {
    if (text === this.#text) return;
    if (!text.startsWith(this.#text)) this.#reset();
    this.#text = text;
    const tokens = lex(holdBack(text.slice(this.#done)));
    const last = tokens.findLastIndex((token) => token.type !== "space");
    if (last < 0) return;
    if (last === 0 && this.#openCode && tokens[0].type === "code") this.#openCode.textContent = tokens[0].text;
    else this.#show(tokens.slice(0, last), tokens[last]);
  }

  /**
   * Shows the whole text at its end, as `renderMarkdown` would; only the last block is left to render. False,
   * and nothing changed, where that is not enough: a link's definition reaches back to blocks before it.
   */
  finish(text) {
    if (!text.startsWith(this.#text) || DEFINITION.test(text)) return false;
    for (const node of this.#tail) node.remove();
    this.#body.append(renderTokens(lex(text.slice(this.#done))));
    return true;
  }

  #reset() {
    this.#done = 0;
    this.#tail = [];
    this.#openCode = null;
    this.#body.replaceChildren();
  }

  #show(finished, last) {
    for (const node of this.#tail) node.remove();
    if (finished.length) this.#body.append(renderTokens(finished));
    this.#done += finished.reduce((length, token) => length + token.raw.length, 0);
    const fragment = renderTokens([closed(last)]);
    this.#tail = [...fragment.childNodes];
    this.#openCode = last.type === "code" ? fragment.querySelector("code") : null;
    this.#body.append(fragment);
  }
}

function holdBack(text) {
  const lines = text.split("\n");
  if (UNDECIDED_LINE.test(lines.at(-1))) lines.pop();
  if (ROW.test(lines.at(-1)) && !ROW.test(lines.at(-2))) lines.pop();
  return lines.join("\n").replace(UNDECIDED_END, "");
}

// Bold, code and links that have begun look so before they end.
function closed(token) {
  if (!PROSE.has(token.type)) return token;
  const raw = token.raw.replace(HALF_LINK, "$1");
  const line = raw.slice(raw.lastIndexOf("\n") + 1).replace(CODE_SPAN, "");
  const ending = line.includes("`") ? "`" : isOdd(line, /\*\*/g) ? "**" : "";
  if (raw === token.raw && !ending) return token;
  return lex(raw.trimEnd() + ending)[0];
}

function isOdd(line, mark) {
  return (line.match(mark)?.length ?? 0) % 2 === 1;
}
