/** Carry out the user's actions in the open conversation: send the requests, keep the state. */

import { createConversation, readConversation, selectBranch, stopTurn } from "../net/api.js";
import { newTurnId } from "../net/turn_stream.js";
import { emptyConversation, questionOf, reduce, runningAnswer } from "./conversation.js";
import { requestFailure } from "./failure.js";
import { RunningAnswers } from "./running_answers.js";
import { isSameWait } from "./wait.js";

const RELOAD_DELAY_MS = 1000; // the server may not have written the answer yet

export class Chat {
  state = emptyConversation;
  #delegate;
  #answers;
  #ownTurns = new Set(); // submitted by this page
  #requestedId = null; // the conversation to show
  #opened = null; // resolves when it is shown
  #loads = 0; // only the result of the newest load is used
  #isStale = false; // the server may have more than the page shows

  /**
   * Calls delegate.onStateChange(), onListChange(), onWaitBegin(wait), onAnswerEnd(answer),
   * onConnected(), onDisconnected(), onOpenFailed(error) and onChangeFailed(error).
   */
  constructor(delegate) {
    this.#delegate = delegate;
    this.#answers = new RunningAnswers({
      onStep: (action) => this.#onStep(action),
      onConnected: () => delegate.onConnected(),
      onDisconnected: () => delegate.onDisconnected(),
      onRejected: (key, error) => this.#onRejected(key, error),
      onExpired: (key) => this.#reload(key),
    });
  }

  /** Show a conversation as the server has it, and stream its running answer. */
  open(id) {
    this.#opened = this.#load(id);
    return this.#opened;
  }

  /** Leave the conversation; running answers continue on the server. */
  close() {
    this.#requestedId = null;
    this.#isStale = false;
    this.#answers.closeAll();
    this.#advance({ type: "closed" });
  }

  /** Load the open conversation again: at once, or when the server has this page's question. */
  async refresh() {
    const id = this.state.id ?? this.#requestedId;
    if (!id) return;
    this.#isStale = true;
    const isUnsent = (message) => !message.id && message.role === "user";
    if (!this.state.messages.some(isUnsent)) await this.open(id);
  }

  /** Show an event of the open conversation, unless the page shows it already. */
  catchUp({ type, conversation, turn, change }) {
    const isOpen = conversation === (this.state.id ?? this.#requestedId);
    const answer = turn && this.#findAnswer(turn);
    if (type === "reset" || (isOpen && !answer && change !== "created")) this.refresh();
    if (type === "end" && answer) this.#answers.complete(answer.key);
  }

  /** Close the connections of running answers until `reconnect`. */
  release() {
    this.#answers.release();
  }

  /** Open the connections of running answers again. */
  reconnect() {
    this.#answers.reconnect();
  }

  /** Report that running answers wait for the network. */
  goOffline() {
    if (!this.#answers.isEmpty) this.#delegate.onDisconnected();
  }

  /** Load the messages before the first one shown, if there are any. */
  async loadEarlier() {
    const { id, messages, earlier } = this.state;
    if (!earlier) return;
    const conversation = await readConversation(id, messages[0].id).catch(() => null);
    if (!conversation) return; // the next scroll tries again
    const isSameStart = this.state.id === id && this.state.messages[0].id === messages[0].id;
    if (isSameStart) this.#advance({ type: "earlierLoaded", conversation });
  }

  /** Ask a question, in a new conversation if none is open. */
  async ask(question, model) {
    if (!this.state.id) await this.#opened;
    if (this.#isAnswering(question)) return;
    const turn = newTurnId();
    this.#advance({ type: "asked", turn, question });
    await this.#submit(turn, { message: question, model });
  }

  /** Ask an edited question, on a new branch. */
  async edit(key, message, model) {
    const isKnown = (question) => !question?.id || question.parent !== undefined;
    if (!isKnown(this.#find(key))) await this.refresh(); // only the server knows the parent
    const question = this.#find(key);
    if (!question || !isKnown(question) || runningAnswer(this.state)) return;
    const turn = newTurnId();
    this.#advance({ type: "edited", key, turn, question: message });
    await this.#submit(turn, { message, parent: sentParent(question), model });
  }

  /** Generate another version of an answer, or retry one that failed. */
  async regenerate(key, model) {
    const question = questionOf(this.state, key);
    if (!question || runningAnswer(this.state)) return;
    const turn = newTurnId();
    this.#advance({ type: "regenerated", key, turn });
    const { id, content: message } = question;
    // A question that never reached the server is sent again, with the parent it was meant for.
    const unsent = { message, parent: sentParent(question) };
    await this.#submit(turn, { ...(id ? { regenerate: id } : unsent), model });
  }

  /** Show the branch through a message. */
  async selectVersion(message) {
    const request = selectBranch(this.state.id, message);
    const error = await request.then(() => null, (failure) => failure);
    await this.refresh();
    if (error) this.#delegate.onChangeFailed(error);
  }

  /** Take over a conversation's title if the conversation is open. */
  retitle(id, title) {
    const isChanged = id === this.state.id && title !== this.state.title;
    if (isChanged) this.#advance({ type: "retitled", title });
  }

  /** Stop the running answer. */
  async stop() {
    const running = runningAnswer(this.state);
    if (running) await stopTurn(running.turn).catch(() => {}); // the stream reports the result
  }

  async #load(id) {
    if (id !== this.state.id) this.close();
    this.#requestedId = id;
    this.#isStale = true;
    const load = ++this.#loads;
    const isStale = () => load !== this.#loads || this.#requestedId !== id;
    try {
      const conversation = await readConversation(id);
      if (isStale()) return;
      this.#delegate.onConnected();
      if (this.#isNewerThan(conversation)) return;
      this.#isStale = false;
      this.#advance({ type: "opened", conversation });
      this.#attach(runningAnswer(this.state));
    } catch (error) {
      if (!isStale()) this.#delegate.onOpenFailed(error);
    }
  }

  // The streaming turn has ended, or begun, since: at its end the page loads it again.
  #isNewerThan({ id, running }) {
    const answer = id === this.state.id && runningAnswer(this.state);
    return answer && this.#answers.has(answer.key) && answer.turn !== running;
  }

  #attach(answer) {
    if (!answer || this.#answers.has(answer.key)) return;
    this.#loads++; // a load that is in flight does not know this answer
    this.#answers.attach(answer.key);
  }

  #isAnswering(question) {
    const running = runningAnswer(this.state);
    return running && questionOf(this.state, running.key)?.content === question;
  }

  async #submit(turn, question) {
    this.#ownTurns.add(turn);
    try {
      const conversation = this.state.id ?? (await this.#create(turn));
      this.#loads++;
      await this.#answers.submit(turn, { ...question, conversation });
    } catch (error) {
      this.#fail(turn, error);
    }
  }

  async #create(turn) {
    const conversation = await createConversation();
    if (this.#find(turn)) {
      this.#requestedId = conversation.id;
      this.#advance({ type: "created", conversation });
    }
    this.#delegate.onListChange();
    return conversation.id;
  }

  #find(key) {
    return this.state.messages.find((message) => message.key === key);
  }

  #findAnswer(turn) {
    return this.state.messages.find((one) => one.turn === turn && one.role === "assistant");
  }

  #onStep(action) {
    if (action.type === "turnEnded" || action.type === "turnFailed") return this.#finish(action);
    const wait = this.#find(action.key)?.wait;
    this.#advance(action);
    if (action.type === "turnStarted") this.#onTurnStart();
    const isNewWait = action.type === "waitReported" && !isSameWait(wait, action.wait, Date.now());
    if (isNewWait) this.#delegate.onWaitBegin(action.wait);
  }

  #onTurnStart() {
    this.#delegate.onListChange();
    if (this.#isStale) this.refresh();
  }

  #finish(action) {
    this.#answers.close(action.key);
    this.#advance(action);
    this.#delegate.onListChange();
    if (this.#isStale || this.#needsRefresh(action.key)) this.refresh();
  }

  // Only the server knows the versions, and the branch to show if an answer stays empty.
  #needsRefresh(key) {
    const [question, answer] = [questionOf(this.state, key), this.#find(key)];
    if (!answer?.id || !answer.content || !this.#ownTurns.has(key)) return true;
    return Boolean(answer.alternatives || question?.alternatives);
  }

  // An attached turn that the server does not know ended long ago: the history has its answer.
  #onRejected(key, error) {
    if (error.status === 404 && !this.#ownTurns.has(key)) this.#reload(key);
    else this.#fail(key, error);
  }

  #fail(key, error) {
    this.#finish({ type: "turnFailed", key, failure: requestFailure(error) });
  }

  #reload(key) {
    this.#answers.close(key);
    setTimeout(() => this.refresh(), RELOAD_DELAY_MS);
  }

  // Every way in which the running answer ends is a step: it is reported once.
  #advance(action) {
    const running = runningAnswer(this.state);
    this.state = reduce(this.state, action);
    this.#delegate.onStateChange();
    // An answer that the server never stored is gone: the last message reports that.
    const last = action.type === "opened" ? this.state.messages.at(-1) : undefined;
    const answer = running && (this.#find(running.key) ?? last);
    if (answer && !answer.streaming) this.#delegate.onAnswerEnd(answer);
  }
}

// A first question has no parent, which the server takes as "". Without one, the question is the
// next of its conversation.
function sentParent({ parent }) {
  return parent === undefined ? undefined : (parent ?? "");
}
