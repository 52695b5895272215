/** The clipboard, also where the page came by plain http and the browser keeps its own from us. */

import { label, strings } from "../strings/strings.js";

const SHOWN_MS = 1600;

/** Copies a text; the button says for a moment that it did. */
export async function copyFrom(button, text) {
  await write(text);
  button.dataset.copied = "";
  label(button, strings.copied);
  setTimeout(() => {
    delete button.dataset.copied;
    label(button, strings[button.dataset.label]);
  }, SHOWN_MS);
}

async function write(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const field = document.createElement("textarea");
  field.value = text;
  field.className = "visually-hidden";
  document.body.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
}
