/** The question: its field, its keys, its buttons, and a draft that outlives a reload. */

import { strings } from "../strings/strings.js";

const DRAFT = "holdline.draft";
const TALLEST = 0.4; // of the window

export class Composer {
  #form;
  #field;
  #send;
  #stop;
  #model;
  #hint;
  #delegate;
  #most = Infinity;

  /** The delegate hears `questionAsked(text, model)`, `stopWanted()` and `lastWanted()`: to edit the last question. */
  constructor(form, delegate) {
    this.#form = form;
    this.#delegate = delegate;
    this.#field = form.querySelector("#question");
    this.#send = form.querySelector("#send");
    this.#stop = form.querySelector("#stop");
    this.#model = form.querySelector("#model");
    this.#hint = form.querySelector("#hint");
    this.#field.value = sessionStorage.getItem(DRAFT) ?? "";
    this.#listen();
    this.#fit();
  }

  /** The model that was chosen, or undefined when there is no choice. */
  get model() {
    return this.#model.value || undefined;
  }

  /** The longest question, in characters. */
  get most() {
    return this.#most;
  }

  /** Takes the server's limits and models. */
  configure({ message_max: most, models, model }) {
    this.#most = most ?? Infinity;
    this.#model.hidden = !(models?.length > 1);
    if (!this.#model.hidden) {
      this.#model.replaceChildren(...models.map((name) => new Option(name, name, name === model, name === model)));
    }
    this.#fit();
  }

  /** Shows Stop in the place of Send while an answer is written and nothing new is typed. */
  setRunning(running) {
    if (running === this.#form.hasAttribute("data-running")) return;
    this.#form.toggleAttribute("data-running", running);
    this.#fit();
  }

  /** Puts the cursor into the field, where that opens no keyboard over the page. */
  focus() {
    if (matchMedia("(pointer: fine)").matches) this.#field.focus();
  }

  #listen() {
    this.#field.addEventListener("input", () => this.#fit());
    this.#field.addEventListener("keydown", (event) => this.#press(event));
    this.#stop.addEventListener("click", () => this.#delegate.stopWanted());
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#ask();
    });
    window.addEventListener("resize", () => this.#fit());
  }

  #press(event) {
    if (isComposing(event)) return;
    const sends = event.key === "Enter" && !event.shiftKey;
    const recalls = event.key === "ArrowUp" && !this.#field.value;
    if (!sends && !recalls) return;
    event.preventDefault();
    if (sends) this.#ask();
    else this.#delegate.lastWanted();
  }

  #ask() {
    const text = this.#field.value.trim();
    if (!text || lengthOf(text) > this.#most) return;
    this.#field.value = "";
    this.#fit();
    this.#delegate.questionAsked(text, this.model);
  }

  #fit() {
    const { value } = this.#field;
    this.#field.style.height = "auto";
    this.#field.style.height = `${Math.min(this.#field.scrollHeight, innerHeight * TALLEST)}px`;
    const length = lengthOf(value.trim());
    this.#send.disabled = length === 0 || length > this.#most;
    const running = this.#form.hasAttribute("data-running");
    this.#stop.hidden = !running;
    this.#send.hidden = running && length === 0;
    this.#form.toggleAttribute("data-too-long", length > this.#most);
    this.#hint.textContent = length > this.#most ? strings.tooLong(length, this.#most) : strings.keys;
    sessionStorage.setItem(DRAFT, value);
  }
}

/** Whether a key belongs to an input method. Safari ends a composition before its Enter, and tells only by 229. */
export function isComposing(event) {
  return event.isComposing || event.keyCode === 229;
}

/** A text's length in characters, as the server counts; a string's own length counts UTF-16 units. */
export function lengthOf(text) {
  return [...text].length;
}
