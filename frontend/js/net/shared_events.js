/**
 * Deliver the events of this session's conversations to every tab, over one connection.
 *
 * The tab that holds a lock has the connection, and passes each event on to the others. The tab
 * that the user views takes the lock, because browsers may suspend hidden ones. When a tab is
 * closed, the lock passes to the next one. Without locks, each visible tab has its own connection.
 */

import { EventChannel } from "./event_channel.js";
import { sharedName } from "./shared_name.js";
import { hasLocks, TabLock } from "./tab_lock.js";

const NAME = sharedName("events");

export class SharedEvents {
  #delegate;
  #channel;
  #tabs = new BroadcastChannel(NAME);
  #lock = new TabLock(NAME, {
    onHeld: () => this.#channel.open(),
    onLost: () => this.#onLost(),
  });

  /**
   * Calls delegate.onEvent(event) for every event, whichever tab receives it, and onConnected() and
   * onRejected(error) for the connection of this tab.
   */
  constructor(delegate) {
    this.#delegate = delegate;
    const { onConnected, onRejected } = delegate;
    const onEvent = (event) => this.#onReceived(event);
    this.#channel = new EventChannel({ onEvent, onConnected, onRejected });
    this.#tabs.onmessage = ({ data }) => delegate.onEvent(data);
  }

  /** Connect, or wait for the connection while the page is hidden. */
  start() {
    if (document.hidden) this.#lock.wait();
    else this.resume();
  }

  /** Take the connection, and open it again: it may be dead without notice. */
  resume() {
    if (!hasLocks || this.#lock.isHeld) this.#channel.open();
    else this.#lock.take();
  }

  /** Leave the connection to visible pages, if it cannot be shared. */
  hide() {
    if (!hasLocks) this.#channel.close();
  }

  /** Send an event to the other tabs. */
  tell(event) {
    this.#tabs.postMessage(event);
  }

  #onReceived(event) {
    if (hasLocks) this.#tabs.postMessage(event);
    this.#delegate.onEvent(event);
  }

  #onLost() {
    this.#channel.close();
    this.#lock.wait();
  }
}
