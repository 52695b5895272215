/** Keep the end of the messages in view while they stream, unless the user has scrolled up. */

const EDGE_THRESHOLD_PX = 64; // closer than this counts as at the top or at the end

export class ScrollKeeper {
  #scroller;
  #jump;
  #delegate;
  #isFollowing = true;
  #lastTop = 0;
  #loading = null; // a promise, while earlier messages are being loaded

  /** `jump` is the button that returns to the end. Calls the async delegate.onTopReached(). */
  constructor(scroller, content, jump, delegate) {
    this.#scroller = scroller;
    this.#jump = jump;
    this.#delegate = delegate;
    scroller.addEventListener("scroll", () => this.#onScroll(), { passive: true });
    jump.addEventListener("click", () => this.follow());
    const observer = new ResizeObserver(() => this.#update());
    observer.observe(content);
    observer.observe(scroller);
  }

  /** Scroll to the end and stay there. */
  follow() {
    this.#isFollowing = true;
    this.#update();
  }

  /** Make a change that adds content at the top, without moving the visible content. */
  keepPositionDuring(change) {
    const fromEnd = this.#scroller.scrollHeight - this.#scroller.scrollTop;
    change();
    if (!this.#isFollowing) this.#scroller.scrollTop = this.#scroller.scrollHeight - fromEnd;
  }

  /** Stop following, and scroll until `element` is at `top`, in px of the window. */
  pin(element, top) {
    this.#isFollowing = false;
    this.#scroller.scrollTop += element.getBoundingClientRect().top - top;
    this.#lastTop = this.#scroller.scrollTop;
  }

  #update() {
    if (this.#isFollowing) this.#scroller.scrollTop = this.#scroller.scrollHeight;
    this.#lastTop = this.#scroller.scrollTop;
    this.#jump.hidden = this.#isFollowing || this.#distanceToEnd() < EDGE_THRESHOLD_PX;
  }

  // Content that is appended never scrolls up, so an upward scroll is the user's.
  #onScroll() {
    const { scrollTop } = this.#scroller;
    if (this.#distanceToEnd() < EDGE_THRESHOLD_PX) this.#isFollowing = true;
    else if (scrollTop < this.#lastTop) this.#isFollowing = false;
    this.#lastTop = scrollTop;
    this.#jump.hidden = this.#isFollowing;
    if (scrollTop < EDGE_THRESHOLD_PX && !this.#isFollowing) this.#loadEarlier();
  }

  #loadEarlier() {
    this.#loading ??= this.#delegate.onTopReached().finally(() => (this.#loading = null));
  }

  #distanceToEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.#scroller;
    return scrollHeight - scrollTop - clientHeight;
  }
}
