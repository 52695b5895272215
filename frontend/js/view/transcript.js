/** Show the messages of the open conversation, with one view for each. */

import { MessageView } from "./message_view.js";

export class Transcript {
  #element;
  #delegate;
  #views = new Map(); // by the message's key

  /** The delegate is that of MessageView. */
  constructor(element, delegate) {
    this.#element = element;
    this.#delegate = delegate;
  }

  /** Show these messages in this order; while `isBusy`, the user cannot change the branch. */
  render(messages, isBusy) {
    this.#removeOthers(new Set(messages.map((message) => message.key)));
    let last = null;
    for (const message of messages) {
      const { element } = this.#show(message, isBusy);
      if (this.#findBefore(element) !== last) this.#insertAfter(last, element);
      last = element;
    }
  }

  /** Return the view of a message, by its key, or undefined. */
  view(key) {
    return this.#views.get(key);
  }

  // An extension may have added elements between the messages. Returns undefined for a message that
  // is not shown, and null for the first one.
  #findBefore(element) {
    if (element.parentNode !== this.#element) return undefined;
    let before = element.previousElementSibling;
    while (before && !before.matches("article.message")) before = before.previousElementSibling;
    return before;
  }

  #insertAfter(last, element) {
    if (last) last.after(element);
    else this.#element.prepend(element);
  }

  #removeOthers(keys) {
    for (const [key, view] of this.#views) {
      if (keys.has(key)) continue;
      view.element.remove();
      this.#views.delete(key);
    }
  }

  #show(message, isBusy) {
    let view = this.#views.get(message.key);
    if (!view) this.#views.set(message.key, (view = new MessageView(message, this.#delegate)));
    view.update(message, isBusy);
    return view;
  }
}
