/**
 * Choose the page's language and put its texts into the markup, which names them by `data-text`,
 * `data-label` and `data-placeholder`.
 */

import { chinese } from "./chinese.js";
import { english } from "./english.js";

const isChinese = navigator.language.toLowerCase().startsWith("zh");

// Failures whose message carries specifics: the field, the model, the upstream's own error text.
const DETAILED = {
  request: new Set(["bad_request", "forbidden", "http", "misdirected"]),
  turn: new Set([
    "authentication", "certificate", "context_length", "invalid_response", "loading", "no_answer",
    "not_found", "proxy", "rate_limited", "refused", "unreachable", "upstream", "withheld",
  ]),
};

/** The page's language as a language tag. */
export const language = isChinese ? "zh-CN" : "en";

/** The texts in that language. */
export const strings = isChinese ? chinese : english;

/** Put the texts into the markup below `root`, and into its templates. */
export function translate(root) {
  for (const node of root.querySelectorAll("[data-text]")) {
    node.textContent = strings[node.dataset.text];
  }
  for (const node of root.querySelectorAll("[data-label]")) {
    label(node, strings[node.dataset.label]);
  }
  for (const node of root.querySelectorAll("[data-placeholder]")) {
    node.placeholder = strings[node.dataset.placeholder];
  }
  for (const node of root.querySelectorAll("template")) translate(node.content);
}

/** Name an element for screen readers, and a button also for the mouse. */
export function label(node, name) {
  node.setAttribute("aria-label", name);
  if (node.matches("button")) node.title = name;
}

/**
 * Describe a failure: `text` in the page's language, and `detail`, the server's English message,
 * if that adds something. On an English page such a message is the text.
 */
export function describeFailure(failure) {
  const { source, type, message } = failure;
  const texts = strings.failures[source];
  const isKnown = Object.hasOwn(texts, type);
  const found = isKnown ? texts[type] : strings.unknownFailure;
  const text = typeof found === "function" ? found(failure) : found;
  if (!message || (isKnown && !DETAILED[source].has(type))) return { text, detail: "" };
  return isChinese ? { text, detail: message } : { text: message, detail: "" };
}

/** Describe how an answer ended, for those who do not see it. */
export function describeEnding({ failure, finishReason }) {
  if (failure) return describeFailure(failure).text;
  return strings.finishReasons[finishReason] ?? strings.answerReady;
}
