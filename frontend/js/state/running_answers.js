/** Keep one stream for each running answer, and turn its frames into steps of the conversation. */

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

  /**
   * Calls delegate.onStep(action), onConnected(), onDisconnected(), onRejected(key, error), and
   * onExpired(key) for a turn of which the server has no frames left.
   */
  constructor(delegate) {
    this.#delegate = delegate;
  }

  get isEmpty() {
    return this.#streams.size === 0;
  }

  /** Submit a question and stream its answer. */
  submit(key, question) {
    return this.#add(key).submit(question);
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
    for (const stream of this.#streams.values()) stream.release();
  }

  /** Open every stream again: a connection may be dead without notice. */
  reconnect() {
    for (const stream of this.#streams.values()) stream.reconnect();
  }

  /** Stop streaming one answer; its turn continues on the server. */
  close(key) {
    this.#streams.get(key)?.close();
    this.#streams.delete(key);
    this.#delegate.onConnected();
  }

  /** Stop streaming all answers. */
  closeAll() {
    for (const stream of this.#streams.values()) stream.close();
    this.#streams.clear();
    this.#delegate.onConnected();
  }

  #add(key) {
    const stream = new TurnStream(key, {
      onFrame: (name, data) => this.#delegate.onStep({ key, ...steps[name](data) }),
      onConnected: () => this.#delegate.onConnected(),
      onDisconnected: () => this.#delegate.onDisconnected(),
      onRejected: (error) => this.#delegate.onRejected(key, error),
      onExpired: () => this.#delegate.onExpired(key),
    });
    this.#streams.set(key, stream);
    return stream;
  }
}
