/**
 * Keep in view what the user reads: the end of the messages while they stream, or the paragraph to
 * which the user has scrolled, whatever changes above it and however the window is resized.
 */

const EDGE_THRESHOLD_PX = 64; // closer than this counts as at the top, or needs no button
const END_PX = 2; // positions are fractions when the page is zoomed
const UPWARD_KEYS = new Set(["ArrowUp", "PageUp", "Home"]);
const FIELD = "input, textarea, select";
const PARAGRAPH =
  "p, li, h1, h2, h3, h4, h5, h6, tr, pre, summary, .text-chunk, [data-role='user'] .message-body";
const SEARCH_PX = 200; // how far below the top a paragraph is looked for
const SEARCH_STEP_PX = 8;

export class ScrollKeeper {
  #scroller;
  #content;
  #jump;
  #delegate;
  #isFollowing = true;
  #isPressed = false; // text that moves cannot be clicked or selected
  #touchY = 0;
  #lastTop = 0;
  #reading = null; // the paragraph at the top, unless following
  #positions = new Map(); // where the user has left conversations, by their id
  #returning = null; // the position to find once its message is shown
  #loading = null; // a promise, while earlier messages are being loaded

  /** `jump` is the button that returns to the end. Calls the async delegate.onTopReached(). */
  constructor(scroller, content, jump, delegate) {
    this.#scroller = scroller;
    this.#content = content;
    this.#jump = jump;
    this.#delegate = delegate;
    this.#listen();
    const observer = new ResizeObserver(() => this.#update());
    observer.observe(content);
    observer.observe(scroller);
  }

  /** Whether the end is kept in view. */
  get isFollowing() {
    return this.#isFollowing;
  }

  /** Scroll to the end and stay there. */
  follow() {
    this.#isFollowing = true;
    this.#returning = null;
    this.#update();
  }

  /** Leave the conversation `old` for another, and show that where the user has left it. */
  open(id, old) {
    this.#positions.set(old, this.#returning ?? this.#describePosition());
    this.follow();
    this.#returning = this.#positions.get(id);
  }

  /** Stop following, and scroll until `element` is at `top`, in px of the window. */
  pin(element, top) {
    this.#isFollowing = false;
    this.#scrollTo(this.#scroller.scrollTop + element.getBoundingClientRect().top - top);
    this.#reading = this.#findParagraph();
  }

  // Scrolling up begins after the event. Without these, following would cancel it.
  #listen() {
    const on = (target, types, step) => {
      for (const type of types) target.addEventListener(type, step, { passive: true });
    };
    on(this.#scroller, ["scroll"], () => this.#onScroll());
    on(this.#scroller, ["wheel"], (event) => this.#onWheel(event));
    on(this.#scroller, ["touchstart"], (event) => this.#onTouchStart(event));
    on(this.#scroller, ["pointerdown"], ({ button }) => (this.#isPressed = button === 0));
    on(window, ["pointerup", "pointercancel"], (event) => this.#onRelease(event));
    on(document, ["keydown"], (event) => this.#onKeydown(event));
    on(this.#jump, ["click"], () => this.follow());
    on(window, ["resize"], () => this.#update()); // before the scroll event that it causes
  }

  #onWheel({ deltaY, ctrlKey }) {
    if (ctrlKey) return; // zooms
    if (deltaY < 0) this.#stopFollowing();
    else if (deltaY > 0 && this.#distanceToEnd() <= END_PX) this.follow();
  }

  // Events of a touch go to the element where it began, also after streaming has replaced it.
  #onTouchStart({ target, touches }) {
    this.#touchY = touches[0].clientY;
    this.#isPressed = true;
    const ended = new AbortController();
    const options = { passive: true, signal: ended.signal };
    target.addEventListener("touchmove", (event) => this.#onTouchMove(event), options);
    const release = (event) => (ended.abort(), this.#onRelease(event));
    for (const type of ["touchend", "touchcancel"]) target.addEventListener(type, release, options);
  }

  #onTouchMove({ touches: [{ clientY }] }) {
    if (clientY > this.#touchY) this.#stopFollowing();
    this.#touchY = clientY;
  }

  #onKeydown({ key, shiftKey, target }) {
    const isUpward = UPWARD_KEYS.has(key) || (key === " " && shiftKey);
    const isHere = target === document.body || this.#scroller.contains(target);
    if (isUpward && isHere && !target.matches(FIELD)) this.#stopFollowing();
  }

  #onRelease({ type, pointerType }) {
    if (type === "pointercancel" && pointerType === "touch") return; // the finger scrolls
    this.#isPressed = false;
    this.#update();
  }

  #stopFollowing() {
    if (!this.#isFollowing || this.#scroller.scrollTop <= 0) return;
    this.#isFollowing = false;
    this.#reading = this.#findParagraph();
  }

  #onScroll() {
    const { scrollTop } = this.#scroller;
    if (scrollTop === this.#lastTop) return; // the page itself has scrolled
    const isUp = scrollTop < this.#lastTop;
    const distance = this.#distanceToEnd();
    // A search in the page or a screen reader scrolls without an event; a resize scrolls less.
    if (isUp && (this.#isPressed || distance >= EDGE_THRESHOLD_PX)) this.#isFollowing = false;
    else if (!isUp && distance <= END_PX) this.#isFollowing = true;
    this.#lastTop = scrollTop;
    this.#returning = null;
    this.#reading = this.#isFollowing ? null : this.#findParagraph();
    this.#showJump();
    if (scrollTop < EDGE_THRESHOLD_PX && !this.#isFollowing) this.#loadEarlier();
  }

  #update() {
    if (this.#returning) this.#return(this.#returning);
    if (!this.#isFollowing) this.#keepParagraph();
    else if (!this.#isPressed) this.#scrollTo(this.#scroller.scrollHeight);
    this.#showJump();
  }

  #scrollTo(top) {
    this.#scroller.scrollTop = top;
    this.#lastTop = this.#scroller.scrollTop;
  }

  #showJump() {
    this.#jump.hidden = this.#isFollowing || this.#distanceToEnd() < EDGE_THRESHOLD_PX;
  }

  // A paragraph that only grows stays where it is. If its width changes, its lines do.
  #keepParagraph() {
    if (!this.#reading?.element.isConnected) return;
    const { element, above, part, width } = this.#reading;
    const box = element.getBoundingClientRect();
    const hidden = box.width === width ? above : part * box.height;
    Object.assign(this.#reading, { above: hidden, width: box.width });
    const { scrollTop } = this.#scroller;
    this.#scrollTo(scrollTop + box.top + hidden - this.#scroller.getBoundingClientRect().top);
  }

  // Returns how much of the paragraph at the top is above it, in px and as a part of its height.
  #findParagraph() {
    const { left, top, width } = this.#scroller.getBoundingClientRect();
    for (let y = top + 1; y < top + SEARCH_PX; y += SEARCH_STEP_PX) {
      const element = document.elementFromPoint(left + width / 2, y)?.closest(PARAGRAPH);
      if (!this.#content.contains(element ?? null)) continue;
      const box = element.getBoundingClientRect();
      const above = top - box.top;
      return { element, above, part: above / box.height, width: box.width };
    }
    return null;
  }

  #describePosition() {
    const message = this.#isFollowing ? null : this.#reading?.element.closest("article");
    if (!message?.dataset.id) return null;
    const { element, part } = this.#reading;
    const index = [...message.querySelectorAll(PARAGRAPH)].indexOf(element);
    const articles = [...this.#content.querySelectorAll("article")];
    const count = articles.length - articles.indexOf(message);
    return { message: message.dataset.id, index, part, count };
  }

  #return({ message, index, part, count }) {
    const articles = [...this.#content.querySelectorAll("article")];
    const article = articles.find(({ dataset }) => dataset.id === message);
    const element = article?.querySelectorAll(PARAGRAPH)[index];
    if (!article && articles.length && articles.length < count) this.#loadEarlier();
    if (!element) return;
    this.#returning = null;
    this.#isFollowing = false;
    this.#reading = { element, part, width: NaN };
  }

  #loadEarlier() {
    this.#loading ??= this.#delegate.onTopReached().finally(() => (this.#loading = null));
  }

  #distanceToEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.#scroller;
    return scrollHeight - scrollTop - clientHeight;
  }
}
