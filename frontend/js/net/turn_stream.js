/**
 * Read one turn's event stream: open it, resume it, back off, release it, close it.
 *
 * A hidden page releases its streams, because over HTTP/1.1 a browser opens only six connections to
 * a host. A new question is sent first: its stream is released when the server has begun the turn.
 *
 * The browser's EventSource reconnects after a dropped connection. After any response but 200 it
 * closes for good and gives no reason. The page then requests the URL with fetch: it reports the
 * error, or opens the stream again after the last frame. A question in a URL that a firewall or
 * proxy rejects, or that is too long for them, is sent by POST. The turn's id makes all of these
 * requests one question.
 */

import { beginTurn, diagnoseStream, readInfo, streamUrl, StreamStatus } from "./api.js";
import { ApiError } from "./response.js";

const FRAMES = [
  "turn", "message", "reasoning", "restart", "waiting", "usage", "failed", "end",
];
const MAX_URL_LENGTH = 7000; // bytes; the server accepts 16,384 of headers, nginx a line of 8,192
const MAX_RETRY_DELAY_MS = 15_000;
const IDLE_TIMEOUT_MS = 30_000; // scripts see no heartbeat: an idle connection may be dead

const State = Object.freeze({
  NEW: "new",
  READING: "reading",
  WAITING: "waiting", // for the time of the next attempt
  RELEASED: "released", // until the page is visible again
  CLOSED: "closed",
});

/** Create a turn id: 128 random bits as 22 characters of base64url. */
export function newTurnId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return btoa(String.fromCharCode(...bytes))
    .replaceAll("+", "-")
    .replaceAll("/", "_")
    .replace(/=+$/, "");
}

export class TurnStream {
  #turn;
  #delegate;
  #state = State.NEW;
  #url = "";
  #question = null; // to send by POST
  #mayPost = false; // if something else than the server rejects the question in the URL
  #source = null;
  #lastId = "";
  #mustRelease = false; // as soon as the turn has begun
  #attempts = 0;
  #retryTimer = 0;
  #idleTimer = 0;

  /**
   * Calls delegate.onFrame(name, data), onConnected(), and onDisconnected(error), where `error` may
   * be absent. The stream ends with the frame `end` or `failed`, with onRejected(error), or with
   * onExpired() if the server has no frames left.
   */
  constructor(turn, delegate) {
    this.#turn = turn;
    this.#delegate = delegate;
  }

  /** Submit a question as this turn, and read its answer. */
  submit(question) {
    this.#question = { ...question, turn: this.#turn };
    const url = streamUrl(this.#question);
    this.#mayPost = url.length <= MAX_URL_LENGTH;
    if (this.#mayPost) this.#open(url);
    else this.#post();
  }

  /** Read a turn that the server already knows, after the last frame received. */
  attach() {
    const url = streamUrl({ turn: this.#turn, last_event_id: this.#lastId || null });
    if (document.hidden) this.#pause(State.RELEASED, url);
    else this.#open(url);
  }

  /** Open the connection again, which may be dead without notice. Never begins a second turn. */
  reconnect() {
    this.#mustRelease = false;
    this.#reopen();
  }

  /** Close the connection until `reconnect`, as soon as the server has begun the turn. */
  release() {
    this.#mustRelease = true;
    if (this.#lastId) this.#pause(State.RELEASED, this.#url);
  }

  get isReleased() {
    return this.#state === State.RELEASED;
  }

  /** Stop reading; the turn continues on the server. */
  close() {
    this.#pause(State.CLOSED, this.#url);
  }

  #pause(state, url) {
    if (this.#state === State.CLOSED) return;
    this.#state = state;
    this.#url = url;
    clearTimeout(this.#retryTimer);
    clearTimeout(this.#idleTimer);
    this.#source?.close();
  }

  #reopen() {
    if (this.#state === State.NEW) return;
    if (this.#lastId) this.attach();
    else if (this.#url) this.#open(this.#url);
    else this.#post();
  }

  // Until the server has begun the turn there is no URL to read it from.
  async #post() {
    if (this.#state === State.CLOSED) return;
    this.#pause(State.NEW, "");
    try {
      const delay = await beginTurn(this.#question);
      if (delay) this.#retryLater(delay);
      else this.attach();
    } catch (error) {
      if (this.#mayRetry(error)) this.#retryLater(0, error);
      else this.#reject(await explain(error));
    }
  }

  #open(url) {
    if (this.#state === State.CLOSED) return;
    this.#pause(State.READING, url);
    this.#source = new EventSource(url);
    this.#source.onopen = () => this.#delegate.onConnected();
    this.#source.onerror = () => this.#onError();
    for (const name of FRAMES) {
      this.#source.addEventListener(name, (event) => this.#onFrame(name, event));
    }
    this.#restartIdleTimer();
  }

  #restartIdleTimer() {
    clearTimeout(this.#idleTimer);
    this.#idleTimer = setTimeout(() => this.#reopen(), IDLE_TIMEOUT_MS);
  }

  #onFrame(name, event) {
    this.#attempts = 0;
    this.#restartIdleTimer();
    // On a new connection, a frame without an id leaves the last one empty.
    if (event.lastEventId) this.#lastId = event.lastEventId;
    // A repeated question is attached to its first turn.
    if (this.#lastId) this.#turn = this.#lastId.split(".")[0];
    if (name === "end" || name === "failed") this.close();
    this.#delegate.onFrame(name, event.data);
    if (this.#mustRelease) this.release();
  }

  #onError() {
    if (this.#state !== State.READING) return;
    if (this.#source.readyState === EventSource.CLOSED) this.#diagnose(this.#source);
    else this.#delegate.onDisconnected();
  }

  async #diagnose(source) {
    const { status, error } = await diagnoseStream(this.#url);
    if (this.#state !== State.READING || source !== this.#source) return;
    if (status === StreamStatus.EXPIRED) this.#expire();
    else if (status === StreamStatus.AVAILABLE || this.#mayRetry(error)) this.#retryLater(0, error);
    else if (this.#canPost(error)) this.#post();
    else this.#reject(error);
  }

  get #hasBegun() {
    return !this.#question || this.#lastId !== "";
  }

  // A new question that the server rejects is reported at once. Otherwise a retry loses nothing.
  #mayRetry(error) {
    if (error.type === "server_unreachable") return true;
    return this.#hasBegun && (error.isRetryable || error.isForeign);
  }

  // The server itself rejects a URL only if it has no room next to other applications' cookies.
  #canPost({ isForeign, status, type }) {
    const canPost = this.#mayPost && (isForeign || (status === 413 && type === "http"));
    this.#mayPost = false;
    return canPost;
  }

  // Without `delay`, in ms, each attempt waits longer than the one before.
  #retryLater(delay, error) {
    if (this.#state === State.CLOSED) return;
    this.#delegate.onDisconnected(error);
    const backoff = Math.min(MAX_RETRY_DELAY_MS, 1000 * 2 ** this.#attempts++);
    this.#state = State.WAITING;
    const random = 0.75 + Math.random() / 2;
    this.#retryTimer = setTimeout(() => this.#reopen(), delay || backoff * random);
  }

  #reject(error) {
    if (this.#state === State.CLOSED) return;
    this.close();
    this.#delegate.onRejected(error);
  }

  #expire() {
    if (!this.#hasBegun) return this.#reject(new ApiError(204, "unsent")); // by something else
    this.close();
    this.#delegate.onExpired();
  }
}

// A firewall that rejects one question, and a sign-in that has expired, may send the same status.
async function explain(error) {
  if (error.type !== "sign_in_expired") return error;
  const isExpired = await readInfo().then(() => false, ({ isForeign }) => isForeign);
  return isExpired ? error : new ApiError(error.status, "blocked");
}
