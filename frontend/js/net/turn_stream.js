/**
 * One answer's event stream: open, resume, back off, close.
 *
 * The browser's EventSource reconnects by itself after a dropped line. It gives up for good on any other
 * answer than 200, without a word: then we ask why, and either say so or open it again where it stopped.
 */

import { beginTurn, streamUrl, whyRefused } from "./api.js";

const LONGEST_URL = 7000; // bytes; the server takes a head of 16,384, but nginx a line of 8,192
const SLOWEST_RETRY_MS = 15_000;
const QUIET_MS = 30_000; // heartbeats are hidden from us: after this long without a frame the line may be dead
const FRAMES = ["turn", "message", "reasoning", "restart", "usage", "failed", "end"];

/** A fresh id for a turn: 128 random bits as 22 characters of base64url. */
export function newTurnId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return btoa(String.fromCharCode(...bytes))
    .replaceAll("+", "-")
    .replaceAll("/", "_")
    .replace(/=+$/, "");
}

/**
 * Reads a turn's frames until its last. The delegate hears `frameCame(name, data)`, `lineLost()`, `lineHeld()`,
 * `streamRefused(error)`, and `streamGone()` when the server has nothing more to tell.
 */
export class EventStream {
  #turn;
  #delegate;
  #url = "";
  #source = null;
  #lastId = "";
  #attempts = 0;
  #timer = 0; // for the next try
  #watch = 0; // for the silence of a line that seems open
  #closed = false;

  constructor(turn, delegate) {
    this.#turn = turn;
    this.#delegate = delegate;
  }

  /** Asks a question as this turn, and reads its answer. */
  async ask(question) {
    const url = streamUrl({ ...question, turn: this.#turn });
    if (url.length <= LONGEST_URL) return this.#listen(url);
    try {
      await beginTurn({ ...question, turn: this.#turn });
    } catch (error) {
      return this.#refuse(error);
    }
    this.attach();
  }

  /** Reads a turn that was asked before. */
  attach() {
    if (!this.#closed) this.#listen(streamUrl({ turn: this.#turn, last_event_id: this.#lastId || null }));
  }

  /** Opens the line again where it is, which may be dead without a sign; costs a request and asks nothing twice. */
  reopen() {
    if (this.#closed || !this.#url) return;
    if (this.#lastId) this.attach();
    else this.#listen(this.#url);
  }

  /** Stops reading; the turn itself goes on. */
  close() {
    this.#closed = true;
    clearTimeout(this.#timer);
    clearTimeout(this.#watch);
    this.#source?.close();
  }

  #listen(url) {
    if (this.#closed) return;
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#url = url;
    this.#source = new EventSource(url);
    this.#source.onopen = () => this.#delegate.lineHeld();
    this.#source.onerror = () => this.#lose();
    for (const name of FRAMES) this.#source.addEventListener(name, (event) => this.#take(name, event));
    this.#watchSilence();
  }

  #watchSilence() {
    clearTimeout(this.#watch);
    this.#watch = setTimeout(() => this.reopen(), QUIET_MS);
  }

  #take(name, event) {
    this.#attempts = 0;
    this.#watchSilence();
    this.#lastId = event.lastEventId;
    this.#turn = this.#lastId.split(".")[0]; // the server may have joined us to a turn with the same question
    if (name === "end" || name === "failed") this.close();
    this.#delegate.frameCame(name, event.data);
  }

  #lose() {
    if (this.#closed) return;
    if (this.#source.readyState === EventSource.CLOSED) this.#askWhy(this.#source);
    else this.#delegate.lineLost();
  }

  async #askWhy(source) {
    const { error, ended } = await whyRefused(this.#url);
    if (this.#closed || source !== this.#source) return;
    if (ended) this.#leave();
    else if (error && !(error.passing && this.#mayWait(error))) this.#refuse(error);
    else this.#openLater();
  }

  // Once an answer was seen, or when nobody was there to refuse it, waiting costs the reader nothing.
  #mayWait(error) {
    return this.#lastId !== "" || error.status === 0;
  }

  #openLater() {
    this.#delegate.lineLost();
    const wait = Math.min(SLOWEST_RETRY_MS, 1000 * 2 ** this.#attempts++) * (0.75 + Math.random() / 2);
    this.#timer = setTimeout(() => this.reopen(), wait);
  }

  #refuse(error) {
    if (this.#closed) return;
    this.close();
    this.#delegate.streamRefused(error);
  }

  #leave() {
    this.close();
    this.#delegate.streamGone();
  }
}
