/**
 * Show Markdown while it streams, in time linear in its length.
 *
 * Blocks that can no longer change are not touched. Only the last block is rendered again, and of
 * a list, inner list or table only the last item or row; its nodes are patched. open_markup.js
 * decides how the end of the text looks.
 */

import { startListChunk, startTableChunk } from "./chunks.js";
import { closeOpenMarkup, lexOpen } from "./open_markup.js";
import { patchAfter } from "./patch.js";
import { lex, renderTokens } from "./render.js";
import { StreamingText } from "./streaming_text.js";

const DEFINITION = /^ {0,3}(?:[>\-+*\d.) \t]*)\[[^^\]\n][^\]\n]*\]:\s*<?(?:https?:|mailto:|tel:)/im;
const BULLET = /^ *(?:[-+*]|\d+[.)])/;
const MARKER = /^\s*(?:[-+*]|\d+[.)])\s+/; // of an item, with its indent

const CHUNK_SIZE = 100; // items or rows
const MIN_INNER_SIZE = 20; // items of an inner list whose items are finished, too
const CONTAINER = { list: "ul, ol", table: "tbody" };
const START_CHUNK = { list: startListChunk, table: startTableChunk };

export class StreamingMarkdown {
  #body;
  #text = "";
  #finished = 0; // characters that are never rendered again
  #kept = null; // the node before those of the other characters, if there is one
  #openCode = null; // the last block, if it is code
  #openBlock = null; // the last block, if it is a list or table with finished items

  constructor(body) {
    this.#body = body;
    this.#body.replaceChildren();
  }

  /** Show the text so far. A text that does not extend the last one starts again. */
  write(text) {
    if (text === this.#text) return;
    if (!text.startsWith(this.#text) || !this.#isIntact()) this.#restart();
    this.#text = text;
    const tokens = this.#extendBlock(lexOpen, true) ?? lexOpen(text.slice(this.#finished));
    const last = tokens.findLastIndex((token) => token.type !== "space");
    if (last < 0) return;
    const isSameCode = last === 0 && this.#openCode && tokens[0].type === "code";
    if (isSameCode) this.#openCode.write(tokens[0].text.trimEnd());
    else this.#show(tokens.slice(0, last), tokens[last]);
  }

  /**
   * Show the complete text as `renderMarkdown` would, except that a long list or table stays in
   * chunks. Only the last block is rendered. Return false and change nothing if the text defines
   * a link, because a definition can change earlier blocks.
   */
  finish(text) {
    if (!text.startsWith(this.#text) || DEFINITION.test(text)) return false;
    if (!this.#isIntact()) this.#restart();
    this.#text = text;
    const tokens = this.#extendBlock(lex, false) ?? lex(text.slice(this.#finished));
    this.#finishCode(tokens[0]);
    patchAfter(this.#kept, this.#body, [...renderTokens(tokens).childNodes]);
    return true;
  }

  // An extension may have replaced a node that this object would continue from.
  #isIntact() {
    const container = this.#openBlock?.container ?? this.#body;
    const code = this.#openCode?.element ?? container;
    const isChild = !this.#kept || this.#kept.parentNode === container;
    return isChild && this.#body.contains(container) && this.#body.contains(code);
  }

  #restart() {
    this.#finished = 0;
    this.#kept = null;
    this.#openCode = null;
    this.#openBlock = null;
  }

  /**
   * Render an open list or table again, from its last item or row on. Return the tokens after it,
   * or none while it is the last block and `isOpen`. Return null if there is no such block, or if
   * the new text changes its earlier items (a list becomes loose): then the block starts again.
   */
  #extendBlock(split, isOpen) {
    const block = this.#openBlock;
    if (!block) return null;
    if (isOpen && this.#extendInnerList(split)) return [];
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
    this.#kept = this.#body.lastChild;
    this.#openBlock = null;
    return following;
  }

  // Render the innermost open list again, from its last item on. Return false, and change nothing,
  // if there is none, or if the new text is more than items of it.
  #extendInnerList(split) {
    const { inner } = this.#openBlock;
    const isIntact = inner && inner.kept.parentNode === inner.container;
    if (!isIntact || !this.#body.contains(inner.container)) return false;
    const [token, ...following] = split(inner.prefix + this.#text.slice(inner.finished));
    const lists = findOpenLists(token);
    const isSame = lists.length === inner.depth && lists.slice(0, -1).every(hasOneItem);
    const last = isSame && findLastItem(token.raw, lists);
    if (!last || following.some(({ type }) => type !== "space")) return false;
    const [outermost] = renderTokens(closeOpenMarkup(token)).children;
    const rendered = findOpenElement(outermost, inner.depth);
    if (!rendered) return false;
    copyNumber(inner.container.lastElementChild, rendered.children[0]);
    const nodes = [...rendered.childNodes];
    patchAfter(inner.kept, inner.container, nodes.slice(nodes.indexOf(rendered.children[0])));
    inner.finished += last.start - inner.prefix.length;
    inner.kept = inner.container.lastElementChild.previousSibling;
    return true;
  }

  // `start` is the place of `token` in the text.
  #openInnerList(token, start) {
    const lists = findOpenLists(token);
    const last = lists.length > 1 && findLastItem(token.raw, lists);
    const container = last && findOpenElement(this.#openBlock.container, lists.length);
    if (!container || container.children.length < MIN_INNER_SIZE) return null;
    const { prefix, start: finished } = last;
    const kept = container.lastElementChild.previousSibling;
    return { container, kept, prefix, finished: start + finished, depth: lists.length };
  }

  #restartBlock() {
    const { kept, start } = this.#openBlock;
    this.#kept = kept;
    this.#finished = start;
    this.#openBlock = null;
    if (!this.#isIntact()) this.#restart();
  }

  #appendItems(token) {
    const { container, prefixItems } = this.#openBlock;
    const rendered = renderTokens([token]).querySelector(CONTAINER[token.type]);
    copyNumber(container.lastElementChild, rendered.children[prefixItems]);
    const nodes = [...rendered.childNodes];
    const tail = nodes.slice(nodes.indexOf(rendered.children[prefixItems]));
    patchAfter(this.#kept, container, tail);
  }

  #show(finished, last) {
    this.#finishCode(finished[0]);
    const fragments = [renderTokens(finished), renderTokens(closeOpenMarkup(last))];
    const [done, open] = fragments.map((fragment) => [...fragment.childNodes]);
    const shown = patchAfter(this.#kept, this.#body, [...done, ...open]);
    if (done.length) this.#kept = shown[done.length - 1];
    this.#finished += finished.reduce((length, token) => length + token.raw.length, 0);
    const block = shown[done.length];
    if (last.type === "code") this.#openText(block.querySelector("code"), last.text);
    const container = CONTAINER[last.type] && findAt(block, CONTAINER[last.type]);
    if (container) this.#openList(last, container);
  }

  #openText(element, text) {
    this.#openCode = new StreamingText(element);
    this.#openCode.write(text.trimEnd()); // a line end before the closing fence is not text
  }

  // The end of a code block's text arrives together with the next block.
  #finishCode(token) {
    if (token?.type === "code") this.#openCode?.write(token.text.trimEnd());
    this.#openCode = null;
  }

  #openList(token, container) {
    const { type, loose } = token;
    const position = { start: this.#finished, kept: this.#kept };
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
    const start = this.#finished - oldPrefix;
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
    }
    this.#kept = block.container.lastElementChild.previousSibling;
    block.inner = this.#openInnerList(token, start);
  }
}

// Returns the lists that are open at the end of a token, from the outermost on, if all are tight.
function findOpenLists(token) {
  const lists = [];
  for (let list = token; list?.type === "list"; ) {
    if (list.loose) return [];
    lists.push(list);
    list = list.items.at(-1).tokens.findLast(({ type }) => type !== "space");
  }
  return lists;
}

function hasOneItem({ items }) {
  return items.length === 1;
}

// Returns the innermost of `depth` lists that are open at the end of an element.
function findOpenElement(list, depth) {
  let element = list;
  for (let level = 1; level < depth; level += 1) {
    const parts = [...(element?.lastElementChild?.children ?? [])];
    element = parts.findLast((part) => part.matches("ul, ol"));
  }
  return element;
}

// Returns the `start` of the innermost list's last item in `source`, which ends with it, and a
// `prefix` after which the lines of the item are in the same lists. The tokens in an item have no
// indent, but as many lines as in the source.
function findLastItem(source, lists) {
  const lines = source.trimEnd().split("\n");
  const items = lists.map((list) => list.items.at(-1).raw.trimEnd().split("\n"));
  const starts = items.map((item) => lines.length - item.length);
  const isOwnLine = (at, index) => index === 0 || at > starts[index - 1];
  const isFound = items.every(([line], index) => lines[starts[index]]?.trim() === line.trim());
  if (!isFound || !starts.every(isOwnLine)) return null;
  const start = lines.slice(0, starts.at(-1)).join("\n").length + 1;
  const markers = starts.slice(0, -1).map((at) => MARKER.exec(lines[at])?.[0]);
  if (!markers.every(Boolean)) return null;
  // After a heading, any list can begin.
  return { start, prefix: markers.map((marker) => `${marker}# .\n`).join("") };
}

function findAt(block, selector) {
  return block?.matches(selector) ? block : block?.querySelector(selector);
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
