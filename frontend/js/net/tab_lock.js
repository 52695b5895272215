/**
 * A Web Lock that the tabs of a browser pass on: a tab takes it from another one, or waits for it.
 *
 * Pages from other hosts over plain http have no Web Locks: there, no tab holds the lock.
 */

/** Whether this page has Web Locks. */
export const hasLocks = Boolean(navigator.locks);

export class TabLock {
  #name;
  #delegate;
  #isHeld = false;
  #requests = 0; // the newest one counts
  #queue = new AbortController();
  #release = () => {};

  /** Calls delegate.onHeld(), and onLost() when another tab has taken the lock. */
  constructor(name, delegate) {
    this.#name = name;
    this.#delegate = delegate;
  }

  get isHeld() {
    return this.#isHeld;
  }

  /** Take the lock, from another tab if necessary. */
  take() {
    if (!this.#isHeld) this.#request({ steal: true });
  }

  /** Take the lock if no tab has it; resolve to whether this tab has it now. */
  tryTake() {
    return new Promise((resolve) => this.#request({ ifAvailable: true }, resolve));
  }

  /** Take the lock when the tabs before this one have dropped it. */
  wait() {
    this.#request({ signal: this.#queue.signal });
  }

  /** Leave the lock, and its queue, to other tabs. */
  drop() {
    this.#requests++;
    this.#leaveQueue();
    this.#isHeld = false;
    this.#release();
  }

  async #request(options, onAnswer = () => {}) {
    if (!hasLocks) return onAnswer(false);
    if (!options.signal) this.#leaveQueue();
    const number = ++this.#requests;
    const isNewest = () => number === this.#requests;
    try {
      await navigator.locks.request(this.#name, options, (lock) => {
        const isGranted = lock !== null && isNewest();
        onAnswer(isGranted);
        return isGranted ? this.#hold() : null;
      });
    } catch (error) {
      if (error.name === "AbortError" && isNewest()) this.#lose();
    }
  }

  #leaveQueue() {
    this.#queue.abort();
    this.#queue = new AbortController();
  }

  // The browser keeps the lock until this promise settles.
  #hold() {
    this.#isHeld = true;
    this.#delegate.onHeld();
    return new Promise((resolve) => (this.#release = resolve));
  }

  #lose() {
    this.#isHeld = false;
    this.#delegate.onLost();
  }
}

/** Hold a name until this page is closed, so that other tabs know that it is open. */
export function holdName(name) {
  // If the browser refuses Web Locks, no name is held.
  navigator.locks?.request(name, () => new Promise(() => {})).catch(() => {});
}

/** Return the names that open tabs hold; none if the browser refuses Web Locks. */
export async function listHeldNames() {
  const { held = [] } = (await navigator.locks?.query().catch(() => null)) ?? {};
  return new Set(held.map(({ name }) => name));
}
