/** Edit a question in its place. */

import { fitHeight, isComposing, lengthOf, readQuestion } from "./text_field.js";

export class QuestionEditor {
  #element;
  #body;
  #text;
  #field;
  #send;
  #maxLength;
  #onSubmit;
  #onClose;

  /**
   * Replaces `body`, which shows the question `text`, by a form. Calls onSubmit(text) with a text
   * that differs, and onClose() once the editor is removed. `maxLength` is in characters.
   */
  constructor(body, text, { maxLength, onSubmit, onClose }) {
    this.#body = body;
    this.#text = text; // a translator may have changed the body
    this.#maxLength = maxLength;
    this.#onSubmit = onSubmit;
    this.#onClose = onClose;
    const template = document.querySelector("#question-editor");
    this.#element = template.content.firstElementChild.cloneNode(true);
    this.#field = this.#element.querySelector("textarea");
    this.#send = this.#element.querySelector(".main-button");
    this.#listen();
    body.hidden = true;
    body.after(this.#element);
    this.#field.value = text;
    this.#update();
    this.#field.focus();
  }

  /** Disable sending while another answer is running. */
  set isBusy(isBusy) {
    this.#element.toggleAttribute("data-busy", isBusy);
    this.#update();
  }

  close() {
    this.#element.remove();
    this.#body.hidden = false;
    this.#onClose();
  }

  #listen() {
    this.#field.addEventListener("input", () => this.#update());
    this.#element.addEventListener("keydown", (event) => this.#onKeydown(event));
    this.#element.querySelector(".plain-button").addEventListener("click", () => this.close());
    this.#element.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
  }

  #onKeydown(event) {
    if (isComposing(event)) return;
    const isSubmit = event.key === "Enter" && (event.ctrlKey || event.metaKey);
    if (event.key === "Escape") this.close();
    else if (isSubmit) this.#submit();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  #submit() {
    if (this.#send.disabled) return;
    const text = readQuestion(this.#field);
    if (text === this.#text) this.close();
    else this.#onSubmit(text);
  }

  #update() {
    fitHeight(this.#field);
    const length = lengthOf(readQuestion(this.#field));
    const isSendable = length > 0 && length <= this.#maxLength;
    this.#send.disabled = !isSendable || this.#element.hasAttribute("data-busy");
  }
}
