/**
 * Show a model's reasoning: open while the model thinks, closed once the answer begins, unless the
 * user reads it.
 */

import { StreamingText } from "../markdown/streaming_text.js";
import { strings } from "../strings/strings.js";

const State = Object.freeze({ EMPTY: "empty", THINKING: "thinking", DONE: "done" });

export class Reasoning {
  #element;
  #shown = "";
  #state = State.EMPTY;
  #writer;
  #delegate;
  #isChosen = false; // the user has opened or closed it

  /**
   * `element` is the `<details>` of an answer. delegate.isFollowing() returns whether the end of
   * the messages is kept in view.
   */
  constructor(element, delegate) {
    this.#element = element;
    this.#delegate = delegate;
    this.#writer = new StreamingText(element.querySelector(".reasoning-text"));
    const summary = element.querySelector("summary");
    summary.addEventListener("click", () => (this.#isChosen = true));
  }

  /** Show an answer's reasoning. When the first text arrives, it closes the element. */
  update({ reasoning, content, streaming }) {
    const state = streaming && !content ? State.THINKING : State.DONE;
    if (reasoning === this.#shown && state === this.#state) return;
    this.#element.hidden = !reasoning;
    this.#writer.write(reasoning);
    this.#shown = reasoning;
    if (state !== this.#state) this.#enter(state, Boolean(content));
  }

  #enter(state, hasContent) {
    const isThinking = state === State.THINKING;
    const summary = this.#element.querySelector("summary");
    summary.textContent = isThinking ? strings.thinking : strings.reasoning;
    const isAnswered = hasContent && this.#state === State.THINKING;
    if (isThinking && !this.#isChosen) this.#element.open = true;
    else if (isAnswered && !this.#isRead()) this.#element.open = false;
    this.#state = state;
  }

  #isRead() {
    const selection = getSelection();
    const isSelected = !selection.isCollapsed && selection.containsNode(this.#element, true);
    return this.#isChosen || isSelected || !this.#delegate.isFollowing();
  }
}
