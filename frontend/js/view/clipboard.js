/** Copy text, also over plain HTTP, where browsers do not provide navigator.clipboard. */

import { label, strings } from "../strings/strings.js";

const FEEDBACK_MS = 1600;

/** Copy a text, and confirm it on the button for a moment; throws if the browser rejects it. */
export async function copyFrom(button, text) {
  await copy(text);
  button.dataset.copied = "";
  label(button, strings.copied);
  setTimeout(() => {
    delete button.dataset.copied;
    label(button, strings[button.dataset.label]);
  }, FEEDBACK_MS);
}

async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const field = document.createElement("textarea");
  field.value = text;
  field.className = "visually-hidden";
  document.body.append(field);
  const focused = document.activeElement;
  field.select();
  const isCopied = document.execCommand("copy");
  field.remove();
  focused.focus();
  if (!isCopied) throw new Error("The browser rejected the copy.");
}
