/**
 * Show Markdown while it streams, in time linear in its length.
 *
 * Blocks that can no longer change keep their nodes. Only the last block is rendered again, and of
 * a list or table only the last item or row. open_markup.js decides how the end of the text looks.
 */

import { startListChunk, startTableChunk } from "./chunks.js";
import { closeOpenMarkup, lexOpen } from "./open_markup.js";
import { lex, renderTokens } from "./render.js";
import { StreamingText } from "./streaming_text.js";

const DEFINITION = /^ {0,3}(?:[>\-+*\d.) \t]*)\[[^^\]\n][^\]\n]*\]:\s*<?(?:https?:|mailto:|tel:)/im;
const BULLET = /^ *(?:[-+*]|\d+[.)])/;

const CHUNK_SIZE = 100; // items or rows
const CONTAINER = { list: "ul, ol", table: "tbody" };
const START_CHUNK = { list: startListChunk, table: startTableChunk };

export class StreamingMarkdown {
  #body;
  #text = "";
  #finished = 0; // characters that are never rendered again
  #tail = []; // the nodes of the other characters
  #openCode = null; // the last block, if it is code
  #openBlock = null; // the last block, if it is a list or table with finished items

  constructor(body) {
    this.#body = body;
    this.#body.replaceChildren();
  }

  /** Show the text so far. A text that does not extend the last one starts again. */
  write(text) {
    if (text === this.#text) return;
    if (!text.startsWith(this.#text)) this.#reset();
    this.#text = text;
    const tokens = this.#extendBlock(lexOpen, true) ?? lexOpen(text.slice(this.#finished));
    const last = tokens.findLastIndex((token) => token.type !== "space");
    if (last < 0) return;
    const isSameCode = last === 0 && this.#openCode && tokens[0].type === "code";
    if (isSameCode) this.#openCode.write(tokens[0].text);
    else this.#show(tokens.slice(0, last), tokens[last]);
  }

  /**
   * Show the complete text as `renderMarkdown` would, except that a long list or table stays in
   * chunks. Only the last block is rendered. Return false and change nothing if the text defines
   * a link, because a definition can change earlier blocks.
   */
  finish(text) {
    if (!text.startsWith(this.#text) || DEFINITION.test(text)) return false;
    this.#text = text;
    const tokens = this.#extendBlock(lex, false) ?? lex(text.slice(this.#finished));
    this.#clearTail();
    this.#body.append(renderTokens(tokens));
    return true;
  }

  #reset() {
    this.#finished = 0;
    this.#tail = [];
    this.#openCode = null;
    this.#openBlock = null;
    this.#body.replaceChildren();
  }

  /**
   * Render an open list or table again, from its last item or row on. Return the tokens after it,
   * or none while it is the last block and `isOpen`. Return null if there is no such block, or if
   * the new text changes its earlier items (a list becomes loose): then the block starts again.
   */
  #extendBlock(split, isOpen) {
    const block = this.#openBlock;
    if (!block) return null;
    const [token, ...following] = split(block.prefix + this.#text.slice(this.#finished));
    if (!isContinued(block, token)) {
      this.#restartBlock();
      return null;
    }
    const staysOpen = isOpen && following.every(({ type }) => type === "space");
    this.#appendItems(staysOpen ? closeOpenMarkup(token)[0] : token);
    if (staysOpen) {
      this.#freezeFinished(token);
      return [];
    }
    this.#finished += token.raw.length - block.prefix.length;
    this.#openBlock = null;
    return following;
  }

  #restartBlock() {
    const { nodes, start } = this.#openBlock;
    this.#tail = nodes;
    this.#finished = start;
    this.#openBlock = null;
  }

  #appendItems(token) {
    const { container, prefixItems } = this.#openBlock;
    const rendered = renderTokens([token]).querySelector(CONTAINER[token.type]);
    copyNumber(container.lastElementChild, rendered.children[prefixItems]);
    this.#clearTail();
    const nodes = [...rendered.childNodes];
    container.append(...nodes.slice(nodes.indexOf(rendered.children[prefixItems])));
  }

  #show(finished, last) {
    this.#clearTail();
    if (finished.length) this.#body.append(renderTokens(finished));
    this.#finished += finished.reduce((length, token) => length + token.raw.length, 0);
    const fragment = renderTokens(closeOpenMarkup(last));
    this.#tail = [...fragment.childNodes];
    const code = last.type === "code" ? fragment.querySelector("code") : null;
    this.#openCode = code && new StreamingText(code);
    const container = CONTAINER[last.type] && fragment.querySelector(CONTAINER[last.type]);
    this.#body.append(fragment);
    if (container) this.#openList(last, container);
  }

  #openList(token, container) {
    const { type, loose } = token;
    const position = { start: this.#finished, nodes: this.#tail };
    this.#openBlock = { type, loose, container, ...position, prefix: "", prefixItems: 0 };
    this.#freezeFinished(token);
  }

  /**
   * Finish all items or rows of the open block but the last one, which is rendered again after a
   * `prefix` that gives it the same kind of block.
   */
  #freezeFinished(token) {
    const block = this.#openBlock;
    const oldPrefix = block.prefix.length;
    if (token.type === "table") {
      const lines = token.raw.trimEnd().split("\n");
      this.#finished += token.raw.lastIndexOf(lines.at(-1)) - oldPrefix;
      block.prefix = lines.slice(0, 2).join("\n") + "\n";
    } else {
      const { raw } = token.items.at(-1);
      const finished = token.items.slice(0, -1);
      this.#finished += finished.reduce((length, item) => length + item.raw.length, 0) - oldPrefix;
      block.prefix = token.loose ? `${BULLET.exec(raw)[0]} .\n\n` : "";
      block.prefixItems = token.loose ? 1 : 0;
    }
    if (block.container.children.length > CHUNK_SIZE) {
      block.container = START_CHUNK[token.type](block.container);
      block.nodes.push(block.container);
    }
    const item = block.container.lastElementChild;
    this.#tail = item.nextSibling ? [item, item.nextSibling] : [item]; // with the newline
  }

  #clearTail() {
    for (const node of this.#tail) node.remove();
    this.#tail = [];
  }
}

// The number of an item depends on the items before it, which are not rendered again.
function copyNumber(shown, item) {
  if (shown.hasAttribute("value")) item.setAttribute("value", shown.value);
}

function isContinued(block, token) {
  const items = token?.items ?? token?.rows ?? [];
  const isSameKind = token?.type === block.type && token.loose === block.loose;
  return isSameKind && items.length > block.prefixItems;
}
