/** Show which version of a message is visible, and let the user switch to the next or previous. */

import { label, strings } from "../strings/strings.js";

/** The two directions in which a user can switch. */
export const Direction = Object.freeze({ PREVIOUS: -1, NEXT: 1 });

export class VersionSwitcher {
  element;
  #previous;
  #next;
  #versions = [];
  #index = 0;
  #onSelect;

  /** Calls onSelect(id, direction) with the version to show. */
  constructor(onSelect) {
    const template = document.querySelector("#version-switcher");
    this.element = template.content.firstElementChild.cloneNode(true);
    this.#onSelect = onSelect;
    [this.#previous, this.#next] = this.element.querySelectorAll("button");
    this.#previous.addEventListener("click", () => this.#select(Direction.PREVIOUS));
    this.#next.addEventListener("click", () => this.#select(Direction.NEXT));
    this.element.addEventListener("keydown", (event) => this.#onKeydown(event));
  }

  /** Show a message's position among its versions; hide the switcher if there is only one. */
  show({ id, alternatives }, isBusy) {
    this.element.hidden = !alternatives;
    if (!alternatives) return;
    this.#versions = alternatives;
    this.#index = alternatives.indexOf(id);
    const [number, count] = [this.#index + 1, alternatives.length];
    this.element.querySelector(".version-count").textContent = `${number} / ${count}`;
    label(this.element, strings.version(number, count));
    this.#previous.disabled = isBusy || number <= 1;
    this.#next.disabled = isBusy || number >= count;
  }

  /** Focus the button of a direction, or the other one if it is disabled. */
  focus(direction) {
    const button = this.#button(direction);
    (button.disabled ? this.#button(-direction) : button).focus({ preventScroll: true });
  }

  #onKeydown(event) {
    const { PREVIOUS, NEXT } = Direction;
    const direction = { ArrowLeft: PREVIOUS, ArrowRight: NEXT }[event.key];
    if (!direction) return;
    event.preventDefault();
    if (!this.#button(direction).disabled) this.#select(direction);
  }

  #button(direction) {
    return direction === Direction.PREVIOUS ? this.#previous : this.#next;
  }

  #select(direction) {
    this.#onSelect(this.#versions[this.#index + direction], direction);
  }
}
