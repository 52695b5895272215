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
    let next = this.#element.firstElementChild;
    for (const message of messages) {
      const { element } = this.#show(message, isBusy);
      if (element === next) next = next.nextElementSibling;
      else this.#element.insertBefore(element, next);
    }
  }

  /** Return the view of a message, by its key, or undefined. */
  view(key) {
    return this.#views.get(key);
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
