/**
 * Read the events of this session's conversations over one connection, which resumes by itself.
 *
 * The id of the last event is in the storage that tabs share, so that any tab can resume after it.
 */

import { diagnoseStream, eventsUrl } from "./api.js";
import { sharedStorage } from "./browser_storage.js";
import { sharedName } from "./shared_name.js";

const NAMES = ["turn", "end", "conversation", "reset"];
const LAST_ID = sharedName("lastEvent");
const MAX_RETRY_DELAY_MS = 60_000;

export class EventChannel {
  #delegate;
  #source = null;
  #attempts = 0;
  #retryTimer = 0;

  /**
   * Calls delegate.onEvent({ type, conversation, turn, … }), whose events are in docs/behaviour.md,
   * onConnected(), and onRejected(error).
   */
  constructor(delegate) {
    this.#delegate = delegate;
  }

  /** Connect, again if there is a connection: it may be dead without notice. */
  open() {
    this.close();
    const url = eventsUrl(sharedStorage.read(LAST_ID));
    const source = (this.#source = new EventSource(url));
    source.onopen = () => this.#delegate.onConnected();
    source.onerror = () => source.readyState === EventSource.CLOSED && this.#diagnose(source, url);
    for (const name of NAMES) {
      source.addEventListener(name, (event) => this.#onMessage(event));
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
    sharedStorage.write(LAST_ID, lastEventId);
    this.#delegate.onEvent(JSON.parse(data));
  }

  // After any response but a stream, an EventSource closes for good. The reason may be the id:
  // without one, the server sends `reset`.
  async #diagnose(source, url) {
    const { error } = await diagnoseStream(url);
    if (source !== this.#source) return;
    if (error) this.#delegate.onRejected(error);
    if (error?.status === 400 && !error.isForeign) sharedStorage.remove(LAST_ID);
    const delay = Math.min(MAX_RETRY_DELAY_MS, 1000 * 2 ** this.#attempts++);
    this.#retryTimer = setTimeout(() => this.open(), delay * (0.75 + Math.random() / 2));
  }
}
