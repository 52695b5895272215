/** The form for a question: its field, keys, buttons, and a draft that survives a reload. */

import { tabStorage } from "../net/browser_storage.js";
import { strings } from "../strings/strings.js";
import { fitHeight, isComposing, lengthOf, readQuestion } from "./text_field.js";

const DRAFT_KEY = "holdline.draft";
const MAX_HEIGHT_RATIO = 0.4; // of the window

export class Composer {
  #form;
  #field;
  #send;
  #stop;
  #model;
  #hint;
  #delegate;
  #maxLength = Infinity;

  /**
   * Calls delegate.onSubmit(question, model), unless isRunning(question), and onStop() and
   * onEditLast().
   */
  constructor(form, delegate) {
    this.#form = form;
    this.#delegate = delegate;
    this.#field = form.querySelector("#question");
    this.#send = form.querySelector("#send");
    this.#stop = form.querySelector("#stop");
    this.#model = form.querySelector("#model");
    this.#hint = form.querySelector("#hint");
    this.#field.value = tabStorage.read(DRAFT_KEY) ?? "";
    this.#listen();
    this.#update();
  }

  /** The selected model, or undefined if there is only one. */
  get model() {
    return this.#model.value || undefined;
  }

  /** The maximum length of a question, in characters. */
  get maxLength() {
    return this.#maxLength;
  }

  /** Apply the server's limit and models. */
  configure({ message_max: maxLength, models, model }) {
    this.#maxLength = maxLength ?? Infinity;
    const names = models?.length > 1 ? models : [];
    const chosen = names.includes(this.model) ? this.model : model;
    const option = (name) => new Option(name, name, name === chosen, name === chosen);
    this.#model.replaceChildren(...names.map(option));
    this.#model.hidden = names.length === 0;
    this.#update();
  }

  /** Show Stop while an answer is running, and Send next to it once the user types. */
  setRunning(isRunning) {
    if (isRunning === this.#form.hasAttribute("data-running")) return;
    this.#form.toggleAttribute("data-running", isRunning);
    this.#update();
  }

  /** Focus the field, unless that would open a keyboard on the screen. */
  focus() {
    if (matchMedia("(pointer: fine)").matches) this.#field.focus();
  }

  #listen() {
    this.#field.addEventListener("input", () => this.#update());
    this.#field.addEventListener("keydown", (event) => this.#onKeydown(event));
    this.#stop.addEventListener("click", () => this.#delegate.onStop());
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    window.addEventListener("resize", () => this.#update());
  }

  // A hidden button loses the focus. On a touch screen, the field would open a keyboard.
  #keepFocus(focused) {
    const buttons = [this.#stop, this.#send].filter(({ hidden, disabled }) => hidden || disabled);
    if (!buttons.includes(focused)) return;
    (matchMedia("(pointer: fine)").matches ? this.#field : this.#form).focus();
  }

  #onKeydown(event) {
    if (isComposing(event)) return;
    const isSubmit = event.key === "Enter" && !event.shiftKey;
    const isEditLast = event.key === "ArrowUp" && !this.#field.value;
    if (!isSubmit && !isEditLast) return;
    event.preventDefault();
    if (isSubmit) this.#submit();
    else this.#delegate.onEditLast();
  }

  /** Put a text before the draft. */
  insert(text) {
    this.#field.value = [text, this.#field.value].filter(Boolean).join("\n\n");
    this.#update();
  }

  /** Discard the draft. */
  clear() {
    this.#field.value = "";
    this.#update();
  }

  #submit() {
    const text = readQuestion(this.#field);
    if (!text || lengthOf(text) > this.#maxLength || this.#delegate.isRunning(text)) return;
    this.clear();
    this.#delegate.onSubmit(text, this.model);
  }

  #update() {
    const { activeElement } = document;
    const { value } = this.#field;
    fitHeight(this.#field, innerHeight * MAX_HEIGHT_RATIO);
    tabStorage.write(DRAFT_KEY, value);
    const length = lengthOf(readQuestion(this.#field));
    const isTooLong = length > this.#maxLength;
    const isRunning = this.#form.hasAttribute("data-running");
    this.#send.disabled = length === 0 || isTooLong;
    this.#send.hidden = isRunning && length === 0;
    this.#stop.hidden = !isRunning;
    this.#keepFocus(activeElement);
    this.#form.toggleAttribute("data-too-long", isTooLong);
    const { tooLong, keyHints } = strings;
    this.#hint.textContent = isTooLong ? tooLong(length, this.#maxLength) : keyHints;
  }
}
