/**
 * Render Markdown to DOM with marked, and sanitise all of it with DOMPurify. A model's output is
 * hostile until it leaves this module. HTML in Markdown is shown as text. An image becomes a link,
 * because loading an image could send data to another host without a click.
 */

import { Marked } from "../../vendor/marked.js";
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
const marked = new Marked({ gfm: true, breaks: true }, ...syntax, {
  renderer: {
    // A short reference can repeat a long address many times. A title is shown after its link.
    link(token) {
      checkTime();
      if (!token.title) return false;
      return `${this.link({ ...token, title: "" })} (${this.text({ text: token.title })})`;
    },
    image({ href, title, text }) {
      const words = { type: "text", raw: text, text: text || href };
      return this.link({ type: "link", raw: text, href, title, text, tokens: [words] });
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
