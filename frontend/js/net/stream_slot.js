/**
 * Limit the open streams of a browser. Over HTTP/1.1 it opens only six connections to a host, and
 * needs some for events and requests. The three tabs that wanted a stream last have a slot; another
 * visible tab waits until one of them drops its slot.
 */

import { sharedStorage } from "./browser_storage.js";
import { sharedName } from "./shared_name.js";
import { TabLock } from "./tab_lock.js";

const SLOTS = ["stream0", "stream1", "stream2"].map(sharedName);
const LAST_TAKEN = sharedName("lastSlot");

export class StreamSlot {
  #delegate;
  #locks;
  #lock = null; // held, or waited for
  #isWanted = false;
  #isLost = false;

  /** Calls delegate.onLost(), and onRegained() when it has the slot again. */
  constructor(delegate) {
    this.#delegate = delegate;
    this.#locks = SLOTS.map((name) => {
      const events = { onHeld: () => this.#onHeld(), onLost: () => this.#onLost(lock) };
      const lock = new TabLock(name, events);
      return lock;
    });
  }

  /** Take a slot, from another tab if necessary. */
  async take() {
    this.#isLost = false;
    if (this.#isWanted) return this.#lock?.take();
    this.#isWanted = true;
    for (const lock of this.#locks) {
      if (await lock.tryTake()) return this.#keep(lock);
    }
    this.#keep(this.#chooseTaken());
    this.#lock?.take();
  }

  /** Leave the slot to other tabs. */
  drop() {
    this.#isWanted = false;
    this.#lock?.drop();
    this.#lock = null;
  }

  #keep(lock) {
    if (this.#isWanted) this.#lock = lock;
    else lock.drop();
  }

  // The slots are taken in turn, so that the tab that took its slot first loses it.
  #chooseTaken() {
    const next = (Number(sharedStorage.read(LAST_TAKEN)) + 1) % SLOTS.length;
    sharedStorage.write(LAST_TAKEN, String(next));
    return this.#locks[next];
  }

  #onLost(lock) {
    this.#isLost = true;
    this.#delegate.onLost();
    lock.wait();
  }

  #onHeld() {
    if (this.#isLost) this.#delegate.onRegained();
    this.#isLost = false;
  }
}
