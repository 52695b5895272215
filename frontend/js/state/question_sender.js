/** Send questions, each once and in the order of its conversation; keep them until they begin. */

import { readConversation } from "../net/api.js";
import { ApiError } from "../net/response.js";
import { readWait } from "./wait.js";

const MAX_WAIT_S = 30; // for a limit of the server; a longer wait is left to the user
const LIMITED = [429, 503]; // the statuses of a rejection that is over after Retry-After

export class QuestionSender {
  #answers;
  #unsent;
  #delegate;
  #sending = new Map(); // the queue, and an AbortController, by the turns that have not begun
  #sent = new Set(); // the turns that this page has submitted

  /** Calls delegate.onWait(turn, wait), and onFailed(turn, error) if the turn cannot begin. */
  constructor(answers, unsent, delegate) {
    this.#answers = answers;
    this.#unsent = unsent;
    this.#delegate = delegate;
  }

  /** Send a question as its `turn`, in the conversation of `queue`. */
  async send(queue, question) {
    const { turn, message, replaces, regenerate } = question;
    const isBranch = Boolean(replaces || regenerate);
    const controller = new AbortController();
    this.#sending.set(turn, { queue, controller });
    this.#sent.add(turn);
    if (message !== undefined) this.#unsent.add({ ...question, place: queue.place });
    const { signal } = controller;
    try {
      await queue.add(async (conversation) => {
        await this.#submit({ ...question, conversation }, signal);
        signal.throwIfAborted();
      }, isBranch);
    } catch (error) {
      if (error.type === "moderated") this.#unsent.remove(turn); // to be kept nowhere
      if (!signal.aborted) this.#delegate.onFailed(turn, error);
    } finally {
      if (!signal.aborted) this.#sending.delete(turn);
    }
  }

  /** Note that a turn has begun; return the queue of its question if this page has sent it. */
  begin(turn) {
    const { queue } = this.#sending.get(turn) ?? {};
    this.#sending.delete(turn);
    this.#unsent.remove(turn);
    return queue;
  }

  /** Send a question no more; return whether it had not begun. */
  cancel(turn) {
    const sending = this.#sending.get(turn);
    this.#sending.delete(turn);
    sending?.controller.abort();
    if (sending) this.#answers.close(turn);
    return Boolean(sending);
  }

  /** Return whether a question is being sent. */
  isSending(turn) {
    return this.#sending.has(turn);
  }

  /** Return whether this page has submitted a turn. */
  hasSent(turn) {
    return this.#sent.has(turn);
  }

  // The turn's id makes a question that is sent again after a rejection the same question.
  async #submit({ replaces, parent, ...question }, signal) {
    const { turn, conversation } = question;
    if (signal.aborted) return;
    if (replaces) question.parent = await findParent(conversation, replaces, parent);
    try {
      await this.#answers.submit(turn, question);
    } catch (error) {
      const { status, retryAfterS: seconds } = error;
      if (!LIMITED.includes(status) || !seconds || seconds > MAX_WAIT_S) throw error;
      this.#delegate.onWait(turn, readWait({ why: "limited", seconds }, Date.now()));
      await wait(seconds * 1000, signal);
      if (!signal.aborted) await this.#answers.submit(turn, question);
    }
  }
}

// Only the server knows the message that a question of this page follows; none is "".
async function findParent(conversation, id, known) {
  if (known !== undefined) return known ?? "";
  const { messages } = await readConversation(conversation);
  const found = messages.find((message) => message.id === id);
  if (!found) throw new ApiError(404, "not_found");
  return found.parent ?? "";
}

function wait(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()));
  });
}
