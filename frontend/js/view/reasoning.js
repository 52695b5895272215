/** Show a model's reasoning: open while the model thinks, closed once the answer begins. */

import { StreamingText } from "../markdown/streaming_text.js";
import { strings } from "../strings/strings.js";

const State = Object.freeze({ EMPTY: "empty", THINKING: "thinking", DONE: "done" });

export class Reasoning {
  #element;
  #text;
  #shown = "";
  #state = State.EMPTY;
  #writer = null;

  /** `element` is the `<details>` of an answer. */
  constructor(element) {
    this.#element = element;
    this.#text = element.querySelector(".reasoning-text");
  }

  /** Show an answer's reasoning. When the first text arrives, it closes the element. */
  update({ reasoning, content, streaming }) {
    const state = streaming && !content ? State.THINKING : State.DONE;
    if (reasoning === this.#shown && state === this.#state) return;
    this.#element.hidden = !reasoning;
    this.#write(reasoning, state);
    this.#shown = reasoning;
    if (state !== this.#state) this.#enter(state, Boolean(content));
  }

  #write(reasoning, state) {
    if (state === State.THINKING) {
      this.#writer ??= new StreamingText(this.#text);
      this.#writer.write(reasoning);
    } else {
      this.#writer = null;
      this.#text.textContent = reasoning;
    }
  }

  // The user may open and close the element: only a change of state does it for them.
  #enter(state, hasContent) {
    const isThinking = state === State.THINKING;
    const summary = this.#element.querySelector("summary");
    summary.textContent = isThinking ? strings.thinking : strings.reasoning;
    if (isThinking) this.#element.open = true;
    else if (hasContent && this.#state === State.THINKING) this.#element.open = false;
    this.#state = state;
  }
}
