/**
 * Markdown that is still being written, in time linear in its length: blocks that can change no more keep
 * their nodes; only the last one is rendered again, and of a list or a table only its last item or row. What is
 * not decided yet (a lone `-`, half a fence, a table's first row) is held back for a moment, so that nothing is
 * shown and then taken away.
 */

import { GrowingText } from "./streaming_text.js";
import { lex, renderTokens } from "./render.js";

const UNDECIDED_LINE = /^(?:[-+*=_#|:`~>\s]*|\s*\d{1,9}[.)]?\s*|\s*(?:`{3}|~{3}).*)$/;
const ROW = /^\s*\|/;
const UNDECIDED_END = /(?:[*`~]|[^\S\n])+$/;
const HALF_LINK = /!?\[([^[\]\n]*)\]\([^()\n]*$/;
const CODE_SPAN = /(`+)(?!`)[^\n]*?[^`]\1(?!`)/g;
const DEFINITION = /^ {0,3}(?:[>\-+*\d.) \t]*)\[[^\]\n]+\]:/m;
const PROSE = new Set(["paragraph", "heading", "list", "blockquote"]);
const HOLDER = { list: "ul, ol", table: "tbody" };
const PART = 100; // items or rows
const NEXT_PART = { list: nextItems, table: nextRows };
const BULLET = /^ *(?:[-+*]|\d+[.)])/;

export class StreamingMarkdown {
  #body;
  #text = "";
  #done = 0; // characters that are finished
  #tail = []; // the nodes of what is not
  #openCode = null; // the last block, when it is code
  #growing = null; // the last block, when it is a list or a table of which parts are finished

  constructor(body) {
    this.#body = body;
    this.#body.replaceChildren();
  }

  /** Shows the text so far; a text that does not go on from the last one is begun anew. */
  write(text) {
    if (text === this.#text) return;
    if (!text.startsWith(this.#text)) this.#reset();
    this.#text = text;
    const tokens = this.#grow(holdBack, true) ?? lex(holdBack(text.slice(this.#done)));
    const last = tokens.findLastIndex((token) => token.type !== "space");
    if (last < 0) return;
    if (last === 0 && this.#openCode && tokens[0].type === "code") this.#openCode.write(tokens[0].text);
    else this.#show(tokens.slice(0, last), tokens[last]);
  }

  /**
   * Shows the whole text at its end, as `renderMarkdown` would (but a long list or table stays in parts); only
   * the last block is left to render. False, and nothing changed, where that is not enough: a link's definition
   * reaches back to blocks before it.
   */
  finish(text) {
    if (!text.startsWith(this.#text) || DEFINITION.test(text)) return false;
    this.#text = text;
    const tokens = this.#grow((source) => source, false) ?? lex(text.slice(this.#done));
    this.#clearTail();
    this.#body.append(renderTokens(tokens));
    return true;
  }

  #reset() {
    this.#done = 0;
    this.#tail = [];
    this.#openCode = null;
    this.#growing = null;
    this.#body.replaceChildren();
  }

  #clearTail() {
    for (const node of this.#tail) node.remove();
    this.#tail = [];
  }

  #show(finished, last) {
    this.#clearTail();
    if (finished.length) this.#body.append(renderTokens(finished));
    this.#done += finished.reduce((length, token) => length + token.raw.length, 0);
    const fragment = renderTokens([closed(last)]);
    this.#tail = [...fragment.childNodes];
    this.#openCode = last.type === "code" ? new GrowingText(fragment.querySelector("code")) : null;
    const holder = HOLDER[last.type] && fragment.querySelector(HOLDER[last.type]);
    this.#body.append(fragment);
    if (holder) {
      const { type, loose } = last;
      this.#growing = { holder, type, loose, begin: this.#done, block: this.#tail, lead: "", leading: 0 };
      this.#settle(last);
    }
  }

  /**
   * Goes on with a growing list or table from its last part on. Returns the tokens behind it; none while it is
   * the last block and `open`; null if nothing grows, or if what came changes the parts before (a list becomes
   * loose, say): then it is to be shown from its beginning.
   */
  #grow(prepared, open) {
    const growing = this.#growing;
    if (!growing) return null;
    const [token, ...behind] = lex(prepared(growing.lead + this.#text.slice(this.#done)));
    const parts = token?.items ?? token?.rows ?? [];
    const alike = token?.type === growing.type && token.loose === growing.loose;
    if (!alike || parts.length <= growing.leading) {
      this.#tail = growing.block;
      this.#done = growing.begin;
      this.#growing = null;
      return null;
    }
    const goesOn = open && behind.every(({ type }) => type === "space");
    const rendered = renderTokens([goesOn ? closed(token) : token]).querySelector(HOLDER[token.type]);
    this.#clearTail();
    const nodes = [...rendered.childNodes];
    growing.holder.append(...nodes.slice(nodes.indexOf(rendered.children[growing.leading])));
    if (goesOn) {
      this.#settle(token);
      return [];
    }
    this.#done += token.raw.length - growing.lead.length;
    this.#growing = null;
    return behind;
  }

  /** Finishes all parts of the growing block but the last, which is rendered again behind a `lead` of its kind. */
  #settle(token) {
    const growing = this.#growing;
    const before = growing.lead.length;
    if (token.type === "table") {
      const lines = token.raw.trimEnd().split("\n");
      this.#done += token.raw.lastIndexOf(lines.at(-1)) - before;
      growing.lead = lines.slice(0, 2).join("\n") + "\n";
    } else {
      const last = token.items.at(-1).raw;
      this.#done += token.items.slice(0, -1).reduce((length, { raw }) => length + raw.length, 0) - before;
      growing.lead = token.loose ? `${BULLET.exec(last)[0]} .\n\n` : "";
      growing.leading = token.loose ? 1 : 0;
    }
    if (growing.holder.children.length > PART) {
      growing.holder = NEXT_PART[token.type](growing.holder);
      growing.block.push(growing.holder);
    }
    const part = growing.holder.lastElementChild;
    this.#tail = part.nextSibling ? [part, part.nextSibling] : [part]; // with the line end behind it
  }
}

/** Moves the last item of a long list into one of its own, so that the browser lays out anew only that. */
function nextItems(list) {
  const part = list.cloneNode(false);
  part.classList.add("list-chunk");
  if (part.matches("ol")) part.start = list.start + list.children.length - 1;
  part.append(list.lastElementChild);
  list.after(part);
  return part;
}

/**
 * Moves the last row of a long table into a `<tbody>` of its own, so that the browser lays out anew only that;
 * the columns, which no layout of the whole table aligns any more, keep the widths that they have.
 */
function nextRows(body) {
  const table = body.closest("table");
  if (!table.classList.contains("chunked")) {
    const widths = [...table.tHead.rows[0].cells].map((cell) => cell.getBoundingClientRect().width);
    table.style.inlineSize = `${table.getBoundingClientRect().width}px`;
    // Nothing has a width where the table is not shown: its columns share the room then.
    table.style.setProperty("--columns", widths.map((px) => `minmax(0, ${px || 1}fr)`).join(" "));
    table.classList.add("chunked");
  }
  const part = document.createElement("tbody");
  part.append(body.lastElementChild);
  body.after(part);
  return part;
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
  return lex(raw.trimEnd() + ending)[0] ?? { type: "space", raw: "" };
}

function isOdd(line, mark) {
  return (line.match(mark)?.length ?? 0) % 2 === 1;
}
