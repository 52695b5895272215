/**
 * Deliver the events of this session's conversations to every tab, over one connection.
 *
 * The tab that holds a Web Lock has the connection, and passes each event on to the others. The tab
 * that the user views takes the lock over, because browsers suspend hidden ones. When a tab is
 * closed, the lock passes to the next one. Pages from other hosts by plain http have no Web Locks:
 * there, each visible tab has a connection of its own.
 */

import { EventChannel } from "./event_channel.js";

const NAME = "holdline.events";

const State = Object.freeze({
  OUTSIDE: "outside", // without the lock
  TAKING: "taking",
  HOLDING: "holding",
});

export class SharedEvents {
  #onEvent;
  #channel = new EventChannel((event) => this.#onReceived(event));
  #tabs = new BroadcastChannel(NAME);
  #state = State.OUTSIDE;
  #queue = new AbortController();

  /** Calls onEvent(event) for every event, whichever tab receives it. */
  constructor(onEvent) {
    this.#onEvent = onEvent;
    this.#tabs.onmessage = ({ data }) => onEvent(data);
  }

  /** Connect, or wait for the connection while the page is hidden. */
  start() {
    if (document.hidden) this.#wait();
    else this.resume();
  }

  /** Have the connection, and open it again: it may be dead without notice. */
  resume() {
    if (!navigator.locks || this.#state === State.HOLDING) this.#channel.open();
    else if (this.#state === State.OUTSIDE) this.#take();
  }

  /** Leave the connection to visible pages, if it cannot be shared. */
  hide() {
    if (!navigator.locks) this.#channel.close();
  }

  #onReceived(event) {
    if (this.#state === State.HOLDING) this.#tabs.postMessage(event);
    this.#onEvent(event);
  }

  #take() {
    this.#queue.abort();
    this.#state = State.TAKING;
    this.#request({ steal: true });
  }

  #wait() {
    if (!navigator.locks) return;
    this.#queue = new AbortController();
    this.#request({ signal: this.#queue.signal });
  }

  async #request(options) {
    try {
      await navigator.locks.request(NAME, options, () => this.#hold());
    } catch (error) {
      if (error.name !== "AbortError" || options.signal?.aborted) return;
      this.#channel.close(); // another tab has taken the lock
      this.#state = State.OUTSIDE;
      this.#wait();
    }
  }

  // The lock is held until this promise settles: as long as the page exists, or until it is taken.
  #hold() {
    this.#state = State.HOLDING;
    this.#channel.open();
    return new Promise(() => {});
  }
}
