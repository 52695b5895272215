/** Show in an answer's place why it waits: a countdown, or a place in a queue. */

import { strings } from "../strings/strings.js";

/** Describe a wait as it is now; return "" if it is over. */
export function describeWait({ why, position, until }) {
  const ms = until - Date.now();
  if (ms <= 0) return "";
  return position ? strings.queued(position) : strings.wait(why, Math.ceil(ms / 1000));
}

export class WaitStatus {
  #element;
  #wait;
  #timer = 0;

  /** `element` is not a live region: screen readers would read each second. */
  constructor(element) {
    this.#element = element;
  }

  /** Show an answer's wait; none, or one that is over, hides the element. */
  update({ wait }) {
    if (wait === this.#wait) return;
    this.#wait = wait;
    this.#show();
  }

  #show() {
    clearTimeout(this.#timer);
    const text = this.#wait ? describeWait(this.#wait) : "";
    this.#element.hidden = !text;
    this.#element.textContent = text;
    if (text) this.#timer = setTimeout(() => this.#show(), this.#nextChange());
  }

  // The text changes when the time left is a whole number of seconds.
  #nextChange() {
    return (this.#wait.until - Date.now()) % 1000 || 1000;
  }
}
