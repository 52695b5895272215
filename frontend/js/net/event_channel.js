/**
 * Read the events of this session's conversations over one connection, which resumes by itself.
 *
 * The id of the last event is in localStorage, so that any tab can resume after it.
 */

import { eventsUrl } from "./api.js";
import { sharedName } from "./shared_name.js";

const NAMES = ["turn", "end", "conversation", "reset"];
const LAST_ID = sharedName("lastEvent");
const MAX_RETRY_DELAY_MS = 60_000;

export class EventChannel {
  #onEvent;
  #source = null;
  #attempts = 0;
  #retryTimer = 0;

  /** Calls onEvent({ type, conversation, turn, … }); the events are in docs/behaviour.md. */
  constructor(onEvent) {
    this.#onEvent = onEvent;
  }

  /** Connect, again if there is a connection: it may be dead without notice. */
  open() {
    this.close();
    this.#source = new EventSource(eventsUrl(localStorage.getItem(LAST_ID)));
    this.#source.onerror = () => this.#onError();
    for (const name of NAMES) {
      this.#source.addEventListener(name, (event) => this.#onMessage(event));
    }
  }

  /** Close the connection. */
  close() {
    clearTimeout(this.#retryTimer);
    this.#source?.close();
    this.#source = null;
  }

  #onMessage({ data, lastEventId }) {
    this.#attempts = 0;
    localStorage.setItem(LAST_ID, lastEventId);
    this.#onEvent(JSON.parse(data));
  }

  // After any response but 200, an EventSource closes for good. The reason may be the id: without
  // one, the server sends `reset`.
  #onError() {
    if (this.#source.readyState !== EventSource.CLOSED) return;
    localStorage.removeItem(LAST_ID);
    const delay = Math.min(MAX_RETRY_DELAY_MS, 1000 * 2 ** this.#attempts++);
    this.#retryTimer = setTimeout(() => this.open(), delay * (0.75 + Math.random() / 2));
  }
}
