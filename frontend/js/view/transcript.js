/** The messages of the open conversation: one view for each, kept for as long as the message is shown. */

import { MessageView } from "./message_view.js";

export class Transcript {
  #element;
  #delegate;
  #views = new Map(); // by the message's key

  /** The delegate is that of a MessageView. */
  constructor(element, delegate) {
    this.#element = element;
    this.#delegate = delegate;
  }

  /** Shows these messages, in this order; while `busy`, an answer is being made and no branch can be changed. */
  render(messages, busy) {
    this.#removeOthers(new Set(messages.map((message) => message.key)));
    let place = this.#element.firstElementChild;
    for (const message of messages) {
      const { element } = this.#show(message, busy);
      if (element === place) place = place.nextElementSibling;
      else this.#element.insertBefore(element, place);
    }
  }

  /** The view of a message, by its key, or undefined. */
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

  #show(message, busy) {
    let view = this.#views.get(message.key);
    if (!view) this.#views.set(message.key, (view = new MessageView(message, this.#delegate)));
    view.update(message, busy);
    return view;
  }
}
