/**
 * What a reader can do in a conversation: open, ask, edit, ask anew, choose a branch, stop. Holds the state and
 * the answers' streams.
 */

import { chooseBranch, createConversation, readConversation, stopTurn } from "../net/api.js";
import { nothing, questionOf, reduce, runningAnswer } from "./conversation.js";
import { EventStream, newTurnId } from "../net/turn_stream.js";

// What each frame does to the state.
const actions = {
  turn: (data) => ({ type: "began", turn: JSON.parse(data) }),
  message: (delta) => ({ type: "grew", delta }),
  reasoning: (delta) => ({ type: "thought", delta }),
  restart: () => ({ type: "restarted" }),
  usage: (data) => ({ type: "measured", report: JSON.parse(data) }),
  failed: (data) => ({ type: "failed", failure: JSON.parse(data) }),
  end: (content) => ({ type: "ended", content }),
};

const RELOAD_MS = 1000; // what the server is about to write may not be there yet

/** The delegate hears stateChanged(), listChanged(), answerEnded(), lineLost(), lineHeld(), openFailed(error),
 * changeFailed(error). */
export class Chat {
  state = nothing;
  #delegate;
  #streams = new Map(); // by the answer's key
  #asked = new Set(); // turns that this page itself asked
  #opening = null; // id of the conversation that is wanted
  #opened = null; // done when that one is shown
  #reads = 0; // how often a conversation was asked for: only the newest answer counts

  constructor(delegate) {
    this.#delegate = delegate;
  }

  /** Shows a conversation as the server has it, and goes on reading an answer that is being written. */
  open(id) {
    this.#opened = this.#open(id);
    return this.#opened;
  }

  async #open(id) {
    if (id !== this.state.id) this.close();
    this.#opening = id;
    const read = ++this.#reads;
    const isStale = () => read !== this.#reads || this.#opening !== id;
    try {
      const conversation = await readConversation(id);
      if (isStale() || this.#isReading(id)) return; // what is shown has become newer than this
      this.#delegate.lineHeld();
      this.#step({ type: "opened", conversation });
      const running = runningAnswer(this.state);
      if (running) this.#read(running.key).attach();
    } catch (error) {
      if (!isStale()) this.#delegate.openFailed(error);
    }
  }

  /** Leaves the conversation; running answers go on at the server. */
  close() {
    this.#opening = null;
    for (const stream of this.#streams.values()) stream.close();
    this.#streams.clear();
    this.#delegate.lineHeld();
    this.#step({ type: "closed" });
  }

  /** Brings the open conversation up to date, unless an answer is coming in, or a question did not get through. */
  async refresh() {
    const id = this.state.id ?? this.#opening;
    const unsent = this.state.messages.some((message) => !message.id && message.role === "user");
    if (id && this.#streams.size === 0 && !unsent) await this.open(id);
  }

  /** Opens the lines of running answers again: they may be dead without a sign. */
  reopen() {
    for (const stream of this.#streams.values()) stream.reopen();
  }

  /** Says so if an answer now has to wait for the network. */
  loseNetwork() {
    if (this.#streams.size > 0) this.#delegate.lineLost();
  }

  /** Loads the messages before the first one shown, if there are any. */
  async loadEarlier() {
    const { id, messages, earlier } = this.state;
    if (!earlier) return;
    const conversation = await readConversation(id, messages[0].id).catch(() => null); // scrolling asks again
    const unmoved = this.state.id === id && this.state.messages[0].id === messages[0].id;
    if (conversation && unmoved) this.#step({ type: "earlierCame", conversation });
  }

  /** Asks a question, in a new conversation if none is open. */
  async ask(question, model) {
    if (!this.state.id) await this.#opened;
    if (this.#isRunning(question)) return;
    const turn = newTurnId();
    this.#step({ type: "asked", turn, question });
    await this.#send(turn, { message: question, model });
  }

  /** Asks a question in other words, on a branch beside the old one. */
  async edit(key, message, model) {
    if (this.#find(key)?.parent === undefined) await this.refresh(); // only the server knows what it follows
    const parent = this.#find(key)?.parent;
    if (parent === undefined || runningAnswer(this.state)) return;
    const turn = newTurnId();
    this.#step({ type: "edited", key, turn, question: message });
    await this.#send(turn, { message, parent: parent ?? "", model });
  }

  /** Asks for another answer in the place of this one, or of the one that did not come. */
  async regenerate(key, model) {
    const question = questionOf(this.state, key);
    if (!question || runningAnswer(this.state)) return;
    const turn = newTurnId();
    this.#step({ type: "regenerated", key, turn });
    const { id, content: message, parent } = question;
    // A question that did not get through is sent again, to the place where it was meant to stand.
    const unsent = { message, parent: parent === undefined ? undefined : (parent ?? "") };
    await this.#send(turn, { ...(id ? { regenerate: id } : unsent), model });
  }

  /** Shows the branch through a message. */
  async choose(message) {
    const failure = await chooseBranch(this.state.id, message).then(() => null, (error) => error);
    await this.refresh();
    if (failure) this.#delegate.changeFailed(failure);
  }

  /** Takes a conversation's title, if it is the open one's. */
  retitle(id, title) {
    if (id === this.state.id && title !== this.state.title) this.#step({ type: "retitled", title });
  }

  /** Stops the answer that is being written. */
  async stop() {
    const running = runningAnswer(this.state);
    if (running) await stopTurn(running.turn).catch(() => {}); // the stream itself tells what became of it
  }

  #isReading(id) {
    return this.state.id === id && this.#streams.size > 0;
  }

  #isRunning(question) {
    const running = runningAnswer(this.state);
    return running && questionOf(this.state, running.key)?.content === question;
  }

  async #send(turn, question) {
    this.#asked.add(turn);
    try {
      const conversation = this.state.id ?? (await this.#create(turn));
      await this.#read(turn).ask({ ...question, conversation });
    } catch (error) {
      this.#fail(turn, { type: error.type, message: error.message, retryable: true });
    }
  }

  async #create(turn) {
    const conversation = await createConversation();
    if (this.#find(turn)) {
      this.#opening = conversation.id;
      this.#step({ type: "created", conversation });
    }
    this.#delegate.listChanged();
    return conversation.id;
  }

  #read(key) {
    this.#reads++; // what is still to come of a conversation does not know of this answer
    const stream = new EventStream(key, {
      frameCame: (name, data) => this.#take(key, name, data),
      lineLost: () => this.#delegate.lineLost(),
      lineHeld: () => this.#delegate.lineHeld(),
      streamRefused: (error) => this.#refused(key, error),
      streamGone: () => this.#reload(key),
    });
    this.#streams.set(key, stream);
    return stream;
  }

  #take(key, name, data) {
    const action = { key, ...actions[name](data) };
    if (name === "end" || name === "failed") return this.#finish(action);
    this.#step(action);
    if (name === "turn") this.#delegate.listChanged();
  }

  #finish(action) {
    this.#forget(action.key);
    this.#step(action);
    this.#delegate.answerEnded();
    this.#delegate.listChanged();
    if (this.#isUncertain(action.key)) this.refresh();
  }

  // The server knows what is beside an answer, and shows the branch from before where nothing came of it.
  #isUncertain(key) {
    const [question, answer] = [questionOf(this.state, key), this.#find(key)];
    if (!answer?.id || !answer.content || !this.#asked.has(key)) return true;
    return Boolean(answer.alternatives || question?.alternatives);
  }

  #find(key) {
    return this.state.messages.find((message) => message.key === key);
  }

  // A turn that only was to be read on and is unknown has ended long ago: the history has what it left.
  #refused(key, error) {
    if (error.status === 404 && !this.#asked.has(key)) this.#reload(key);
    else this.#fail(key, { type: error.type, message: error.message, retryable: true });
  }

  #fail(key, failure) {
    this.#finish({ type: "failed", key, failure });
  }

  #reload(key) {
    this.#forget(key);
    setTimeout(() => this.refresh(), RELOAD_MS);
  }

  #forget(key) {
    this.#streams.get(key)?.close();
    this.#streams.delete(key);
    this.#delegate.lineHeld();
  }

  #step(action) {
    this.state = reduce(this.state, action);
    this.#delegate.stateChanged();
  }
}
