/**
 * Notices that the page is back: seen again, in focus again, thawed, online again, or awake after the computer
 * slept. A line that died meanwhile often gives no sign of its own, for nobody was there to be told.
 */

const TICK_MS = 2000;
const JUMP_MS = 10_000; // a tick this late was slept through; a hidden page's timers may be slowed to a minute

/** The delegate hears `pageWoke()`, once or several times, and `networkGone()`. */
export class WakeObserver {
  #delegate;
  #ticked = Date.now();

  constructor(delegate) {
    this.#delegate = delegate;
    document.addEventListener("visibilitychange", () => document.hidden || delegate.pageWoke());
    document.addEventListener("resume", () => delegate.pageWoke());
    for (const name of ["focus", "online", "pageshow"]) window.addEventListener(name, () => delegate.pageWoke());
    window.addEventListener("offline", () => delegate.networkGone());
    setInterval(() => this.#tick(), TICK_MS);
  }

  #tick() {
    const late = Date.now() - this.#ticked - TICK_MS;
    this.#ticked = Date.now();
    if (late > JUMP_MS) this.#delegate.pageWoke();
  }
}
