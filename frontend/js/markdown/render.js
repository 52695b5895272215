/**
 * Markdown to DOM: marked, then DOMPurify over all of it. What a model wrote is hostile until it leaves here.
 * HTML in Markdown is not HTML but text; an image is a link, so that nothing is fetched that nobody clicked.
 */

import { Marked } from "/vendor/marked.js";
import DOMPurify from "/vendor/purify.js";
import { cjkEmphasis } from "./cjk_emphasis.js";
import { strings } from "../strings/strings.js";

const HIDDEN = new Set(["space", "def"]); // tokens of which nothing is shown
const LINE_BREAK = /^<br\s*\/?>/i;

const marked = new Marked({ gfm: true }, cjkEmphasis, {
  tokenizer: {
    html: () => undefined,
    // The one tag that says nothing but layout, and the only line break a table cell can have.
    tag(source) {
      const found = LINE_BREAK.exec(source);
      return found ? { type: "br", raw: found[0] } : undefined;
    },
  },
  renderer: {
    image({ href, title, text }) {
      const words = { type: "text", raw: text, text: text || href };
      return this.link({ type: "link", raw: text, href, title, text, tokens: [words] });
    },
  },
});

const SAFE = {
  RETURN_DOM_FRAGMENT: true,
  ALLOWED_TAGS: (
    "a blockquote br code del em h1 h2 h3 h4 h5 h6 hr input li ol p pre strong table tbody td th thead tr ul"
  ).split(" "),
  ALLOWED_ATTR: ["href", "title", "class", "align", "start", "type", "checked", "disabled"],
  // DOMPurify holds every attribute against this but those named after it.
  ALLOWED_URI_REGEXP: /^(?:https?:\/\/|mailto:|tel:)/i,
  ADD_URI_SAFE_ATTR: ["align", "start", "type", "checked", "disabled"],
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
};

/** The top-level blocks of a text, as marked's tokens. */
export function lex(text) {
  return marked.lexer(text);
}

/** Tokens as safe DOM. */
export function renderTokens(tokens) {
  const fragment = DOMPurify.sanitize(marked.parser(tokens), SAFE);
  fragment.querySelectorAll("a").forEach(openElsewhere);
  fragment.querySelectorAll("pre").forEach(frameCode);
  fragment.querySelectorAll("table").forEach(letScroll);
  return fragment;
}

/**
 * A whole text as safe DOM. Every block in which some of the `seams` lie, or behind which one does, goes through
 * `mark(block, seams)`, which returns what is shown in its place; a seam's `at` counts code points.
 */
export function renderMarkdown(text, seams = [], mark = null) {
  const tokens = lex(text);
  const fragment = new DocumentFragment();
  let done = 0;
  for (const [at, found] of blocksOf(seams, text, tokens)) {
    fragment.append(renderTokens(tokens.slice(done, at)));
    const block = renderTokens(tokens.slice(at, (done = at + 1)));
    fragment.append(mark(block, found));
  }
  fragment.append(renderTokens(tokens.slice(done)));
  return fragment;
}

// Which seams lie in which token, in the order of the text. marked counts UTF-16 units, and line ends as \n.
function blocksOf(seams, text, tokens) {
  const points = [...text];
  const blocks = new Map();
  for (const seam of seams) {
    let left = points.slice(0, seam.at).join("").replaceAll("\r\n", "\n").length;
    const within = tokens.findIndex(({ raw }) => (left -= raw.length) < 0);
    const from = within < 0 ? tokens.length : within;
    const at = tokens.findIndex(({ type }, index) => index >= from && !HIDDEN.has(type));
    const shown = at < 0 ? tokens.findLastIndex(({ type }) => !HIDDEN.has(type)) : at;
    if (shown >= 0) blocks.set(shown, [...(blocks.get(shown) ?? []), seam]);
  }
  return [...blocks].sort(([one], [other]) => one - other);
}

function openElsewhere(link) {
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

function letScroll(table) {
  const frame = document.createElement("div");
  frame.className = "table-scroll";
  frame.tabIndex = 0;
  frame.setAttribute("role", "region");
  frame.setAttribute("aria-label", strings.table);
  table.replaceWith(frame);
  frame.append(table);
}
