/** The way through the versions of a message: which one is shown, the one before, the next. */

import { label, strings } from "../strings/strings.js";

export class Stepper {
  element;
  #back;
  #on;
  #versions = [];
  #at = 0;
  #wanted;

  /** `wanted(id, way)` is told which version is to be shown; `way` is -1 or 1. */
  constructor(wanted) {
    this.element = document.querySelector("#version-switcher").content.firstElementChild.cloneNode(true);
    this.#wanted = wanted;
    [this.#back, this.#on] = this.element.querySelectorAll("button");
    this.#back.addEventListener("click", () => this.#step(-1));
    this.#on.addEventListener("click", () => this.#step(1));
    this.element.addEventListener("keydown", (event) => this.#press(event));
  }

  /** Shows where a message stands among its alternatives; nothing where it is the only one. */
  show({ id, alternatives }, busy) {
    this.element.hidden = !alternatives;
    if (!alternatives) return;
    this.#versions = alternatives;
    this.#at = alternatives.indexOf(id);
    this.element.querySelector(".version-count").textContent = `${this.#at + 1} / ${alternatives.length}`;
    label(this.element, strings.version(this.#at + 1, alternatives.length));
    this.#back.disabled = busy || this.#at <= 0;
    this.#on.disabled = busy || this.#at >= alternatives.length - 1;
  }

  /** Takes the focus, where the reader's next step that way would be. */
  focus(way) {
    const [first, second] = way < 0 ? [this.#back, this.#on] : [this.#on, this.#back];
    (first.disabled ? second : first).focus({ preventScroll: true });
  }

  #press(event) {
    const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!way) return;
    event.preventDefault();
    if (!(way < 0 ? this.#back : this.#on).disabled) this.#step(way);
  }

  #step(way) {
    this.#wanted(this.#versions[this.#at + way], way);
  }
}
