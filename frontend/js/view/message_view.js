/** One message on the page. */

import { copyFrom } from "./clipboard.js";
import { GrowingText } from "../markdown/streaming_text.js";
import { renderMarkdown } from "../markdown/render.js";
import { QuestionEditor } from "./question_editor.js";
import { withSeam } from "../markdown/continuation_mark.js";
import { Stepper } from "./version_switcher.js";
import { StreamingMarkdown } from "../markdown/streaming_markdown.js";
import { strings } from "../strings/strings.js";

export class MessageView {
  element;
  stepper;
  #delegate;
  #parts;
  #shown = {};
  #busy = false;
  #writer = null;
  #thinking = null;
  #thoughts = null;
  #editor = null;

  /**
   * The delegate hears `regenerateWanted(key)`, `editWanted(key, text)`, `branchWanted(id, way, stepper)`, and
   * gives `longestQuestion()`, in characters.
   */
  constructor(message, delegate) {
    const template = document.querySelector(`#${message.role}-message`);
    this.element = template.content.firstElementChild.cloneNode(true);
    this.element.dataset.role = message.role;
    this.#delegate = delegate;
    this.#parts = {
      body: this.element.querySelector(".message-body"),
      reasoning: this.element.querySelector(".reasoning"),
      failure: this.element.querySelector(".failure"),
      footer: this.element.querySelector(".message-footer"),
      changers: this.element.querySelectorAll(".edit, .regenerate, .retry"),
    };
    this.stepper = new Stepper((id, way) => delegate.branchWanted(id, way, this.stepper));
    this.#parts.footer.prepend(this.stepper.element);
    this.#listen();
  }

  /** Shows the message as it is now; does only what has changed. While `busy`, no branch can be changed. */
  update(message, busy) {
    if (message === this.#shown && busy === this.#busy) return;
    const before = this.#shown;
    this.#shown = message;
    this.#busy = busy;
    this.element.dataset.id = message.id;
    this.stepper.show(message, busy);
    for (const button of this.#parts.changers) button.disabled = busy;
    if (message.role === "user") this.#updateQuestion(message);
    else if (message !== before) this.#updateAnswer(message, before);
  }

  /** Opens a question's editor. */
  edit() {
    if (this.#busy || this.#editor || !this.#shown.id) return;
    this.#editor = new QuestionEditor(this.#parts.body, {
      most: this.#delegate.longestQuestion(),
      sent: (text) => this.#delegate.editWanted(this.#shown.key, text),
      closed: () => this.#closeEditor(),
    });
    this.#parts.footer.hidden = true;
  }

  #listen() {
    const on = (selector, step) => this.element.querySelector(selector)?.addEventListener("click", step);
    on(".retry", () => this.#delegate.regenerateWanted(this.#shown.key));
    on(".regenerate", () => this.#delegate.regenerateWanted(this.#shown.key));
    on(".edit", () => this.edit());
    on(".copy-answer", (event) => copyFrom(event.currentTarget, this.#shown.content));
    this.#parts.body.addEventListener("click", copyCode);
  }

  #updateQuestion({ id, content }) {
    this.#parts.body.textContent = content;
    this.element.querySelector(".edit").hidden = !id; // the server does not have it yet
    if (this.#editor) this.#editor.busy = this.#busy;
  }

  #closeEditor() {
    this.#editor = null;
    this.#parts.footer.hidden = false;
    this.element.querySelector(".edit").focus();
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
    const { body } = this.#parts;
    if (message.streaming) {
      this.#writer ??= new StreamingMarkdown(body);
      const empty = !body.hasChildNodes();
      this.#writer.write(message.content);
      if (empty && body.hasChildNodes()) lookAgainAtDirection(body);
    } else if (this.#writer || message.content !== before.content || !sameSeams(message, before)) {
      const finished = !message.continued?.length && this.#writer?.finish(message.content);
      this.#writer = null;
      if (!finished) body.replaceChildren(renderMarkdown(message.content, message.continued, withSeam));
    }
  }

  // Thoughts stand open only until the answer begins; then it is the reader's to open them.
  #showReasoning({ reasoning, content, streaming }, before) {
    const thinking = Boolean(streaming && !content);
    if (reasoning === before.reasoning && thinking === this.#thinking) return;
    const { reasoning: box } = this.#parts;
    const text = box.querySelector(".reasoning-text");
    box.hidden = !reasoning;
    if (thinking) {
      this.#thoughts ??= new GrowingText(text);
      this.#thoughts.write(reasoning);
    } else {
      this.#thoughts = null;
      text.textContent = reasoning;
    }
    if (thinking === this.#thinking) return;
    this.#thinking = thinking;
    box.querySelector("summary").textContent = thinking ? strings.thinking : strings.thoughts;
    if (thinking) box.open = true;
    else if (content && !before.content) box.open = false;
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
    if (footer.hidden) return;
    footer.querySelector(".finish-reason").textContent = message.failure ? "" : (strings.finish[message.finishReason] ?? "");
    footer.querySelector(".metadata").textContent = facts(message).join(" · ");
  }
}

// Chromium does not always look by itself, when the first words come into an empty block.
function lookAgainAtDirection(block) {
  block.removeAttribute("dir");
  block.dir = "auto";
}

function facts({ model, tokens, estimated, continued }) {
  const count = tokens && `${estimated ? "≈ " : ""}${strings.tokens(tokens)}`;
  return [model, count, continued?.length && strings.continued(continued.length)].filter(Boolean);
}

function sameSeams({ continued: one = [] }, { continued: other = [] }) {
  return one.length === other.length && one.every(({ at }, index) => at === other[index].at);
}

function copyCode(event) {
  const button = event.target.closest(".copy-code");
  if (button) copyFrom(button, button.closest(".code-block").querySelector("code").textContent);
}
