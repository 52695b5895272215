/**
 * Render Markdown to DOM with marked, and sanitise all of it with DOMPurify. A model's output is
 * hostile until it leaves this module. HTML in Markdown is shown as text. An image becomes a link,
 * because loading an image could send data to another host without a click; its words are the
 * text of its description, or its address.
 */

import { Marked, Renderer } from "../../vendor/marked.js";
import DOMPurify from "../../vendor/purify.js";
import { BoundedLexer, limits } from "./bounded_lexer.js";
import { cjkEmphasis } from "./cjk_emphasis.js";
import { addresses } from "./syntax/addresses.js";
import { blockStarts } from "./syntax/block_starts.js";
import { definitions } from "./syntax/definitions.js";
import { entities } from "./syntax/entities.js";

import { listNumbers } from "./syntax/list_numbers.js";
import { literalMarks } from "./syntax/literal_marks.js";
import { nestedFences } from "./syntax/nested_fences.js";
import { tables } from "./syntax/tables.js";
import { checkTime } from "./time_limit.js";
import { strings } from "../strings/strings.js";

const MAX_FRAMES = 200; // code blocks with a heading and a button, which take a millisecond each

// Of two extensions that handle the same syntax, marked asks the later one first.
const syntax = [
  cjkEmphasis, tables, limits, literalMarks, addresses, definitions, nestedFences, entities,
  blockStarts, listNumbers,
];
let isLink = false; // while the words of a link are rendered
const marked = new Marked({ gfm: true, breaks: true }, ...syntax, {
  renderer: {
    // A short reference can repeat a long address many times. A title is shown after its link.
    link(token) {
      checkTime();
      if (token.title) {
        return `${this.link({ ...token, title: "" })} (${this.text({ text: token.title })})`;
      }
      if (token.text.trim()) return renderWords(this, token);
      return renderWords(this, { ...token, tokens: [...token.tokens, createText(token.href)] });
    },
    image({ href, title, text, tokens }) {
      const words = createText(this.parser.parseInline(tokens, this.parser.textRenderer) || href);
      if (!isLink) return this.link({ type: "link", href, title, text: href, tokens: [words] });
      return this.text(title ? createText(`${words.text} (${title})`) : words);
    },
  },
});

const SANITISE_OPTIONS = {
  RETURN_DOM_FRAGMENT: true,
  ALLOWED_TAGS: (
    "a blockquote br code del em h1 h2 h3 h4 h5 h6 hr input li ol p pre strong table tbody td th thead tr ul"
  ).split(" "),
  ALLOWED_ATTR: ["href", "class", "align", "start", "value", "type", "checked", "disabled"],
  // DOMPurify applies this to every attribute except those in the list after it.
  ALLOWED_URI_REGEXP: /^(?:https?:\/\/|mailto:|tel:)/i,
  ADD_URI_SAFE_ATTR: ["align", "start", "value", "type", "checked", "disabled"],
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
};

/**
 * Split a text into its top-level blocks, as marked's tokens; may throw OutOfTime. `isPartial`: the
 * text is still growing.
 */
export function lex(text, isPartial = false) {
  return new BoundedLexer(marked.defaults, isPartial).lex(text);
}

/** Render tokens as safe DOM; may throw OutOfTime. */
export function renderTokens(tokens) {
  const html = marked.parser(tokens);
  checkTime();
  const fragment = DOMPurify.sanitize(html, SANITISE_OPTIONS);
  fragment.querySelectorAll("a").forEach(openInNewTab);
  [...fragment.querySelectorAll("pre")].slice(0, MAX_FRAMES).forEach(frameCode);
  fragment.querySelectorAll("table").forEach(makeScrollable);
  checkTime();
  return fragment;
}

/** Render a complete text as safe DOM; may throw OutOfTime. */
export function renderMarkdown(text) {
  return renderTokens(lex(text));
}

// A link contains no links: an image in its words is text.
function renderWords(renderer, token) {
  isLink = true;
  try {
    return Renderer.prototype.link.call(renderer, token);
  } finally {
    isLink = false;
  }
}

function createText(text) {
  return { type: "text", raw: text, text };
}

function openInNewTab(link) {
  link.target = "_blank";
  link.rel = "noopener noreferrer";
}

function frameCode(pre) {
  const frame = document.querySelector("#code-block").content.firstElementChild.cloneNode(true);
  const language = /language-(\S+)/.exec(pre.querySelector("code")?.className ?? "")?.[1] ?? "";
  frame.querySelector(".code-language").textContent = language;
  frame.querySelector("code").textContent = pre.textContent;
  pre.replaceWith(frame);
}

function makeScrollable(table) {
  const frame = document.createElement("div");
  frame.className = "table-scroll";
  frame.tabIndex = 0;
  frame.setAttribute("role", "region");
  frame.setAttribute("aria-label", strings.table);
  table.replaceWith(frame);
  frame.append(table);
}
