/** A question that is being reworded, in its place. */

import { isComposing, lengthOf } from "./composer.js";

/** Opens the editor behind `body`, which it hides; `sent(text)` is called with a text that differs. */
export class QuestionEditor {
  #element;
  #body;
  #field;
  #send;
  #most;
  #sent;
  #closed;

  /** `most` is the longest text in characters; `closed()` is called once the editor is gone. */
  constructor(body, { most, sent, closed }) {
    this.#body = body;
    this.#most = most;
    this.#sent = sent;
    this.#closed = closed;
    this.#element = document.querySelector("#question-editor").content.firstElementChild.cloneNode(true);
    this.#field = this.#element.querySelector("textarea");
    this.#send = this.#element.querySelector(".main-button");
    this.#listen();
    body.hidden = true;
    body.after(this.#element);
    this.#field.value = body.textContent;
    this.#fit();
    this.#field.focus();
  }

  /** Whether an answer is being made, which has to end first. */
  set busy(busy) {
    this.#element.toggleAttribute("data-busy", busy);
    this.#fit();
  }

  close() {
    this.#element.remove();
    this.#body.hidden = false;
    this.#closed();
  }

  #listen() {
    this.#field.addEventListener("input", () => this.#fit());
    this.#element.addEventListener("keydown", (event) => this.#press(event));
    this.#element.querySelector(".plain-button").addEventListener("click", () => this.close());
    this.#element.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
  }

  // An input method has Escape and Enter for itself while it composes.
  #press(event) {
    if (isComposing(event)) return;
    if (event.key === "Escape") this.close();
    else if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    else this.#submit();
    event.preventDefault();
    event.stopPropagation();
  }

  #submit() {
    if (this.#send.disabled) return;
    const text = this.#field.value.trim();
    if (text === this.#body.textContent) this.close();
    else this.#sent(text);
  }

  #fit() {
    this.#field.style.height = "auto";
    this.#field.style.height = `${this.#field.scrollHeight}px`;
    const length = lengthOf(this.#field.value.trim());
    this.#send.disabled = length === 0 || length > this.#most || this.#element.hasAttribute("data-busy");
  }
}
