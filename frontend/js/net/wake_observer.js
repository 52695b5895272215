/**
 * Notices that the page is back: seen again, in focus again, thawed, online again, or awake after the computer
 * slept. A line that died meanwhile often gives no sign of its own, for nobody was there to be told.
 */

const TICK_MS = 2000;
const JUMP_MS = 10_000; // a tick this late was slept through, or is a hidden page's, which may be a minute late
const GATHER_MS = 100; // one return is told by several events

/** The delegate hears `pageWoke()` and `networkGone()`. */
export class WakeObserver {
  #delegate;
  #ticked = Date.now();
  #timer = 0;

  constructor(delegate) {
    this.#delegate = delegate;
    document.addEventListener("visibilitychange", () => document.hidden || this.#wake());
    document.addEventListener("resume", () => this.#wake());
    window.addEventListener("pageshow", ({ persisted }) => persisted && this.#wake());
    for (const name of ["focus", "online"]) window.addEventListener(name, () => this.#wake());
    window.addEventListener("offline", () => delegate.networkGone());
    setInterval(() => this.#tick(), TICK_MS);
  }

  #tick() {
    const late = Date.now() - this.#ticked - TICK_MS;
    this.#ticked = Date.now();
    if (late > JUMP_MS) this.#wake();
  }

  #wake() {
    this.#timer ||= setTimeout(() => {
      this.#timer = 0;
      this.#delegate.pageWoke();
    }, GATHER_MS);
  }
}
