/**
 * Notice that the page is hidden, or active again: visible, focused, thawed, online, or after the
 * computer slept. A connection that died in the meantime often reports no error.
 */

const TICK_MS = 2000;
const SLEEP_THRESHOLD_MS = 10_000; // a later tick: the computer slept, or the page was hidden
const DEBOUNCE_MS = 100; // one return fires several events

export class WakeObserver {
  #delegate;
  #lastTick = Date.now();
  #timer = 0;

  /** Calls delegate.onResume() while the page is visible, onHide() and onOffline(). */
  constructor(delegate) {
    this.#delegate = delegate;
    document.addEventListener("visibilitychange", () => this.#onVisibilityChange());
    document.addEventListener("resume", () => this.#resumeSoon());
    window.addEventListener("pageshow", ({ persisted }) => persisted && this.#resumeSoon());
    for (const name of ["focus", "online"]) window.addEventListener(name, () => this.#resumeSoon());
    window.addEventListener("offline", () => delegate.onOffline());
    setInterval(() => this.#tick(), TICK_MS);
  }

  #onVisibilityChange() {
    if (document.hidden) this.#delegate.onHide();
    else this.#resumeSoon();
  }

  #tick() {
    const delay = Date.now() - this.#lastTick - TICK_MS;
    this.#lastTick = Date.now();
    if (delay > SLEEP_THRESHOLD_MS) this.#resumeSoon();
  }

  #resumeSoon() {
    this.#timer ||= setTimeout(() => {
      this.#timer = 0;
      if (!document.hidden) this.#delegate.onResume();
    }, DEBOUNCE_MS);
  }
}
