/** Show one message. */

import { AnswerBody } from "../markdown/answer_body.js";
import { Remedy, remedyOf } from "../state/failure.js";
import { describeFailure, strings } from "../strings/strings.js";
import { copyFrom } from "./clipboard.js";
import { QuestionEditor } from "./question_editor.js";
import { Reasoning } from "./reasoning.js";
import { VersionSwitcher } from "./version_switcher.js";
import { WaitStatus } from "./wait_status.js";

// The model, not the user, ended these answers early: their button to regenerate has a label.
const INCOMPLETE = new Set(["length", "interrupted", "content_filter", "refusal", "tool_calls"]);

const REMEDY_ICONS = {
  [Remedy.RETRY]: "#icon-retry",
  [Remedy.EDIT]: "#icon-rename",
  [Remedy.NEW_CHAT]: "#icon-plus",
  [Remedy.RELOAD]: "#icon-retry",
};

export class MessageView {
  element;
  switcher;
  #delegate;
  #parts;
  #shown = {};
  #isBusy = false;
  #editor = null;

  /**
   * Calls delegate.onRegenerate(key), onEdit(key, text), onDiscard(key), onRemedy(remedy, key),
   * onCopyFailed(error) and onSelectVersion(id, direction, switcher). delegate.maxQuestionLength()
   * returns the maximum in characters, and delegate.isFollowing() whether the end of the messages
   * is kept in view.
   */
  constructor(message, delegate) {
    const template = document.querySelector(`#${message.role}-message`);
    this.element = template.content.firstElementChild.cloneNode(true);
    this.element.dataset.role = message.role;
    this.#delegate = delegate;
    const reasoning = this.element.querySelector(".reasoning");
    const wait = this.element.querySelector(".wait");
    const body = this.element.querySelector(".message-body");
    const note = this.element.querySelector(".plain-text-note");
    this.#parts = {
      body,
      answer: note && new AnswerBody(body, note),
      reasoning: reasoning && new Reasoning(reasoning, delegate),
      wait: wait && new WaitStatus(wait),
      failure: this.element.querySelector(".failure"),
      remedy: this.element.querySelector(".remedy"),
      footer: this.element.querySelector(".message-footer"),
      branchButtons: this.element.querySelectorAll(".edit, .regenerate, .remedy"),
    };
    this.switcher = new VersionSwitcher((id, direction) =>
      delegate.onSelectVersion(id, direction, this.switcher),
    );
    this.#parts.footer.prepend(this.switcher.element);
    this.#listen();
  }

  /** Show the message as it is now, and change only what differs. */
  update(message, isBusy) {
    if (message === this.#shown && isBusy === this.#isBusy) return;
    const before = this.#shown;
    this.#shown = message;
    this.#isBusy = isBusy;
    this.element.dataset.id = message.id;
    this.switcher.show(message, isBusy);
    for (const button of this.#parts.branchButtons) button.disabled = isBusy;
    if (message.role === "user") this.#updateQuestion(message, before);
    else if (message !== before) this.#updateAnswer(message);
  }

  /** Open a question's editor. */
  edit() {
    if (this.#isBusy || this.#editor) return;
    this.#editor = new QuestionEditor(this.#parts.body, this.#shown.content, {
      maxLength: this.#delegate.maxQuestionLength(),
      onSubmit: (text) => this.#delegate.onEdit(this.#shown.key, text),
      onClose: () => this.#onEditorClose(),
    });
    this.#parts.footer.hidden = true;
  }

  #listen() {
    const onClick = (selector, step) =>
      this.element.querySelector(selector)?.addEventListener("click", step);
    onClick(".remedy", () => this.#onRemedy());
    onClick(".regenerate", () => this.#delegate.onRegenerate(this.#shown.key));
    onClick(".edit", () => this.edit());
    onClick(".discard", () => this.#delegate.onDiscard(this.#shown.key));
    onClick(".copy-answer", (event) => this.#copy(event.currentTarget, this.#shown.content));
    this.#parts.body.addEventListener("click", ({ target }) => this.#copyCode(target));
  }

  #copy(button, text) {
    copyFrom(button, text).catch((error) => this.#delegate.onCopyFailed(error));
  }

  #copyCode(target) {
    const button = target.closest(".copy-code");
    const code = button?.closest(".code-block").querySelector("code");
    if (code) this.#copy(button, code.textContent.replace(/\n+$/, ""));
  }

  #onRemedy() {
    const { failure, key } = this.#shown;
    this.#delegate.onRemedy(remedyOf(failure), key);
  }

  #onEditorClose() {
    this.#editor = null;
    this.#parts.footer.hidden = false;
    this.element.querySelector(".edit").focus();
  }

  #updateQuestion({ id, content }, before) {
    if (content !== before.content) this.#parts.body.textContent = content;
    this.element.querySelector(".discard").hidden = Boolean(id) || this.#isBusy;
    if (this.#editor) this.#editor.isBusy = this.#isBusy;
  }

  #updateAnswer(message) {
    this.element.toggleAttribute("data-streaming", Boolean(message.streaming));
    this.element.setAttribute("aria-busy", String(Boolean(message.streaming)));
    this.#parts.answer.update(message);
    this.#parts.reasoning.update(message);
    this.#parts.wait.update(message);
    this.#showFailure(message.failure);
    this.#showFooter(message);
  }

  #showFailure(failure) {
    const { failure: box, remedy: button } = this.#parts;
    box.hidden = !failure;
    if (!failure) return;
    const { text, detail } = describeFailure(failure);
    const remedy = remedyOf(failure);
    box.dataset.type = failure.type;
    box.querySelector(".failure-text").textContent = text;
    box.querySelector(".failure-detail").textContent = detail;
    button.querySelector("use").setAttribute("href", REMEDY_ICONS[remedy]);
    button.querySelector("span").textContent = strings.remedies[remedy];
  }

  #showFooter(message) {
    const { footer } = this.#parts;
    const isEmpty = !message.content.trim();
    footer.hidden = Boolean(message.streaming) || (isEmpty && !message.alternatives);
    if (footer.hidden) return;
    const reason = message.failure ? "" : message.finishReason;
    if (INCOMPLETE.has(reason)) this.element.dataset.incomplete = reason;
    else delete this.element.dataset.incomplete;
    this.element.toggleAttribute("data-empty", isEmpty);
    footer.querySelector(".finish-reason").textContent = strings.finishReasons[reason] ?? "";
    footer.querySelector(".metadata").textContent = describeAnswer(message);
  }
}

function describeAnswer({ model, tokens, estimated, continued }) {
  const count = tokens && `${estimated ? "≈ " : ""}${strings.tokens(tokens)}`;
  const continuations = continued?.length && strings.continued(continued.length);
  return [model, count, continuations].filter(Boolean).join(" · ");
}
