/** One message on the page. */

import { copyFrom } from "./clipboard.js";
import { renderMarkdown } from "./markdown.js";
import { StreamingMarkdown } from "./streaming_markdown.js";
import { strings } from "./strings.js";

export class MessageView {
  element;
  #parts;
  #shown = {};
  #writer = null;

  /** The delegate hears `retryWanted(key)`. */
  constructor(message, delegate) {
    const template = document.querySelector(`#${message.role}-message`);
    this.element = template.content.firstElementChild.cloneNode(true);
    this.element.dataset.role = message.role;
    this.#parts = {
      body: this.element.querySelector(".message-body"),
      reasoning: this.element.querySelector(".reasoning"),
      failure: this.element.querySelector(".failure"),
      footer: this.element.querySelector(".message-footer"),
    };
    this.element.querySelector(".retry")?.addEventListener("click", () => delegate.retryWanted(this.#shown.key));
    this.element.querySelector(".copy-answer")?.addEventListener("click", (event) => {
      copyFrom(event.currentTarget, this.#shown.content);
    });
    this.#parts.body.addEventListener("click", copyCode);
  }

  /** Shows the message as it is now; does only what has changed. */
  update(message) {
    if (message === this.#shown) return;
    const before = this.#shown;
    this.#shown = message;
    this.element.dataset.id = message.id;
    if (message.role === "user") this.#parts.body.textContent = message.content;
    else this.#updateAnswer(message, before);
  }

  #updateAnswer(message, before) {
    this.element.toggleAttribute("data-streaming", Boolean(message.streaming));
    this.element.setAttribute("aria-busy", String(Boolean(message.streaming)));
    this.#write(message, before);
    this.#showReasoning(message, before);
    this.#showFailure(message.failure);
    this.#showFooter(message);
  }

  #write(message, before) {
    if (message.streaming) {
      this.#writer ??= new StreamingMarkdown(this.#parts.body);
      this.#writer.write(message.content);
    } else if (this.#writer || message.content !== before.content) {
      this.#writer = null;
      this.#parts.body.replaceChildren(renderMarkdown(message.content));
    }
  }

  // Thoughts stand open only until the answer begins; then it is the reader's to open them.
  #showReasoning({ reasoning, content, streaming }, before) {
    if (reasoning === before.reasoning && content === before.content) return;
    const { reasoning: box } = this.#parts;
    const thinking = Boolean(streaming && !content);
    box.hidden = !reasoning;
    box.querySelector(".reasoning-text").textContent = reasoning;
    box.querySelector("summary").textContent = thinking ? strings.thinking : strings.thoughts;
    if (thinking) box.open = true;
    else if (!before.content) box.open = false;
  }

  #showFailure(failure) {
    const { failure: box } = this.#parts;
    box.hidden = !failure;
    if (!failure) return;
    box.querySelector("p").textContent = failure.message ?? strings[failure.type];
  }

  #showFooter(message) {
    const { footer } = this.#parts;
    footer.hidden = Boolean(message.streaming) || !message.content;
    footer.querySelector(".finish").textContent = message.failure ? "" : (strings.finish[message.finishReason] ?? "");
    footer.querySelector(".facts").textContent = facts(message).join(" · ");
  }
}

function facts({ model, tokens, estimated, continued }) {
  const count = tokens && `${estimated ? "≈ " : ""}${strings.tokens(tokens)}`;
  return [model, count, continued && strings.continued(continued)].filter(Boolean);
}

function copyCode(event) {
  const button = event.target.closest(".copy-code");
  if (button) copyFrom(button, button.closest(".code-block").querySelector("code").textContent);
}
