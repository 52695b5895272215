/** Keep one stream for each running answer, and turn its frames into steps of the conversation. */

import { StreamSlot } from "../net/stream_slot.js";
import { TurnStream } from "../net/turn_stream.js";
import { turnFailure } from "./failure.js";
import { readWait } from "./wait.js";

const steps = {
  turn: (data) => ({ type: "turnStarted", turn: JSON.parse(data) }),
  message: (delta) => ({ type: "deltaReceived", delta }),
  reasoning: (delta) => ({ type: "reasoningReceived", delta }),
  restart: () => ({ type: "restarted" }),
  waiting: (data) => ({ type: "waitReported", wait: readWait(JSON.parse(data), Date.now()) }),
  usage: (data) => ({ type: "usageReceived", report: JSON.parse(data) }),
  failed: (data) => ({ type: "turnFailed", failure: turnFailure(JSON.parse(data)) }),
  end: (content) => ({ type: "turnEnded", content }),
};

export class RunningAnswers {
  #delegate;
  #streams = new Map(); // by the answer's key
  #begin = new Map(); // by the key of an answer whose turn has not begun: settles `submit`
  #slot = new StreamSlot({
    onLost: () => this.#releaseStreams(),
    onRegained: () => this.reconnect(),
  });

  /**
   * Calls delegate.onStep(action), onConnected(), onDisconnected(error), onRejected(key, error),
   * and onExpired(key) for a turn of which the server has no frames left.
   */
  constructor(delegate) {
    this.#delegate = delegate;
  }

  get isEmpty() {
    return this.#streams.size === 0;
  }

  /**
   * Submit a question and stream its answer. Resolve when its turn has begun, or the stream is
   * closed; reject with an ApiError if the turn cannot begin.
   */
  submit(key, question) {
    return new Promise((resolve, reject) => {
      this.#begin.set(key, { resolve, reject });
      this.#add(key).submit(question);
    });
  }

  /** Stream an answer that is already running. */
  attach(key) {
    this.#add(key).attach();
  }

  /** Return whether an answer is streaming. */
  has(key) {
    return this.#streams.has(key);
  }

  /** Release the connections until `reconnect`. */
  release() {
    this.#releaseStreams();
    this.#slot.drop();
  }

  /** Open every stream again: a connection may be dead without notice. */
  reconnect() {
    if (!this.isEmpty) this.#slot.take();
    for (const stream of this.#streams.values()) stream.reconnect();
  }

  /** Read the rest of an answer that has ended, if its connection is released. */
  complete(key) {
    const stream = this.#streams.get(key);
    if (stream?.isReleased) stream.reconnect();
  }

  /** Stop streaming one answer; its turn continues on the server. */
  close(key) {
    this.#streams.get(key)?.close();
    this.#streams.delete(key);
    this.#settle(key);
    this.#onClosed();
  }

  /** Stop streaming all answers, but those of questions whose turns have not begun. */
  leave() {
    for (const key of [...this.#streams.keys()]) {
      if (!this.#begin.has(key)) this.close(key);
    }
    this.#onClosed();
  }

  #settle(key, error) {
    const { resolve, reject } = this.#begin.get(key) ?? {};
    this.#begin.delete(key);
    if (error) reject?.(error);
    else resolve?.();
    return Boolean(resolve);
  }

  #onFrame(key, name, data) {
    this.#delegate.onStep({ key, ...steps[name](data) });
    if (name === "turn") this.#settle(key);
  }

  #onRejected(key, error) {
    if (!this.#settle(key, error)) this.#delegate.onRejected(key, error);
  }

  #onClosed() {
    if (this.isEmpty) this.#slot.drop();
    this.#delegate.onConnected();
  }

  #releaseStreams() {
    for (const stream of this.#streams.values()) stream.release();
  }

  #add(key) {
    const stream = new TurnStream(key, {
      onFrame: (name, data) => this.#onFrame(key, name, data),
      onConnected: () => this.#delegate.onConnected(),
      onDisconnected: (error) => this.#delegate.onDisconnected(error),
      onRejected: (error) => this.#onRejected(key, error),
      onExpired: () => this.#delegate.onExpired(key),
    });
    this.#streams.set(key, stream);
    if (!document.hidden) this.#slot.take();
    return stream;
  }
}
