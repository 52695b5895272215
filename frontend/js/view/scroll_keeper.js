/** Keeps the end in view while it grows, unless the reader has scrolled up to read. */

const NEAR_PX = 64;

export class ScrollKeeper {
  #scroller;
  #jump;
  #delegate;
  #following = true;
  #last = 0;
  #loading = false;

  /** `jump` is the button that leads back to the end; the delegate hears `topReached()`, and may return a promise. */
  constructor(scroller, content, jump, delegate) {
    this.#scroller = scroller;
    this.#jump = jump;
    this.#delegate = delegate;
    scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    jump.addEventListener("click", () => this.follow());
    const sizes = new ResizeObserver(() => this.#keep());
    sizes.observe(content);
    sizes.observe(scroller);
  }

  /** Goes to the end and stays with it. */
  follow() {
    this.#following = true;
    this.#keep();
  }

  /** Runs a change that adds content above what is read, which stays where it is on the screen. */
  holdWhile(change) {
    const fromEnd = this.#scroller.scrollHeight - this.#scroller.scrollTop;
    change();
    if (!this.#following) this.#scroller.scrollTop = this.#scroller.scrollHeight - fromEnd;
  }

  /** Leaves the end, and moves what is shown so that `element` stands at `top`, in px of the window. */
  holdAt(element, top) {
    this.#following = false;
    this.#scroller.scrollTop += element.getBoundingClientRect().top - top;
    this.#last = this.#scroller.scrollTop;
  }

  #keep() {
    if (this.#following) this.#scroller.scrollTop = this.#scroller.scrollHeight;
    this.#last = this.#scroller.scrollTop;
    this.#jump.hidden = this.#following || this.#fromEnd() < NEAR_PX;
  }

  // Only a move upwards is the reader's wish to leave the end: growing content moves nothing up.
  #scrolled() {
    const { scrollTop } = this.#scroller;
    if (this.#fromEnd() < NEAR_PX) this.#following = true;
    else if (scrollTop < this.#last) this.#following = false;
    this.#last = scrollTop;
    this.#jump.hidden = this.#following;
    if (scrollTop < NEAR_PX && !this.#following) this.#load();
  }

  async #load() {
    if (this.#loading) return;
    this.#loading = true;
    try {
      await this.#delegate.topReached();
    } finally {
      this.#loading = false;
    }
  }

  #fromEnd() {
    return this.#scroller.scrollHeight - this.#scroller.scrollTop - this.#scroller.clientHeight;
  }
}
