/** Carry out the user's actions in the open conversation: send the requests, keep the state. */

import {
  diagnoseStream, readConversation, selectBranch, stopTurn, streamUrl, StreamStatus,
} from "../net/api.js";
import { ApiError } from "../net/response.js";
import { newTurnId } from "../net/turn_stream.js";
import { emptyConversation, questionOf, reduce, runningAnswer } from "./conversation.js";
import { requestFailure } from "./failure.js";
import { isUnsent } from "./message.js";
import { isNewPlace, QuestionQueue } from "./question_queue.js";
import { QuestionSender } from "./question_sender.js";
import { RunningAnswers } from "./running_answers.js";
import { isSameWait } from "./wait.js";

const RELOAD_DELAY_MS = 1000; // the server may not have written the answer yet

export class Chat {
  state = emptyConversation;
  #delegate;
  #answers;
  #unsent;
  #sender;
  #queues = new Map(); // by the ids of conversations
  #queue = new QuestionQueue(null); // of the conversation that is shown
  #loads = 0; // only the result of the newest load is shown
  #isStale = false; // the server may have more than the page shows

  /**
   * `unsent` keeps the questions until they begin. Calls delegate.onStateChange(), onListChange(),
   * onWaitBegin(wait), onAnswerEnd(answer), onConversationBegin(), onConnected(),
   * onDisconnected(error), onOpenFailed(error) and onChangeFailed(error).
   */
  constructor(unsent, delegate) {
    this.#unsent = unsent;
    this.#delegate = delegate;
    this.#answers = new RunningAnswers({
      onStep: (action) => this.#onStep(action),
      onConnected: () => delegate.onConnected(),
      onDisconnected: (error) => delegate.onDisconnected(error),
      onRejected: (key, error) => this.#onRejected(key, error),
      onExpired: (key) => this.#reload(key),
    });
    this.#sender = new QuestionSender(this.#answers, unsent, {
      onWait: (key, wait) => this.#onStep({ type: "waitReported", key, wait }),
      onFailed: (key, error) => this.#fail(key, error),
    });
  }

  /** Show a conversation as the server has it, or a new one, and stream its running answer. */
  async open(id) {
    if (id && id === this.state.id) return this.refresh();
    this.#answers.leave();
    this.#loads++;
    this.#isStale = false;
    const queue = (this.#queue = this.#findQueue(id));
    queue.isLoaded = id === null;
    this.#advance({ type: "opening", id });
    await this.#offerUnsent(queue); // first: they stay if the conversation is gone
    if (queue === this.#queue) await this.refresh();
  }

  /** Load the open conversation again. */
  async refresh() {
    if (this.state.id) await this.#queue.load().catch(() => {}); // it has been reported
  }

  /** Show an event of the open conversation, unless the page shows it already. */
  catchUp({ type, conversation, turn, change }) {
    const isOpen = conversation === this.state.id;
    const answer = turn && this.#findAnswer(turn);
    const isKnown = answer && (answer.id || answer.streaming);
    if (type === "reset" || (isOpen && !isKnown && change !== "created")) this.refresh();
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
    if (!earlier || !messages[0].id) return; // an edit of the first one may be on its way
    const conversation = await readConversation(id, messages[0].id).catch(() => null);
    if (!conversation) return; // the next scroll tries again
    const isSameStart = this.state.id === id && this.state.messages[0]?.id === messages[0].id;
    if (isSameStart) this.#advance({ type: "earlierLoaded", conversation });
  }

  /** Ask a question in the conversation that is shown now, whatever is opened before it is sent. */
  ask(message, model) {
    if (this.isAnswering(message)) return;
    const turn = newTurnId();
    this.#advance({ type: "asked", turn, question: message });
    this.#sender.send(this.#queue, { turn, message, model });
  }

  /** Return whether a question is answered at the moment: it is not asked twice. */
  isAnswering(question) {
    const running = runningAnswer(this.state);
    return Boolean(running) && questionOf(this.state, running.key)?.content === question;
  }

  /** Ask an edited question, on a new branch. */
  edit(key, message, model) {
    const question = this.#find(key);
    if (!question || runningAnswer(this.state)) return;
    const turn = newTurnId();
    this.#advance({ type: "edited", key, turn, question: message });
    this.#unsent.remove(question.turn);
    const { parent, replaces } = this.#find(`question-${turn}`);
    this.#sender.send(this.#queue, { turn, message, replaces, parent, model });
  }

  /** Generate another version of an answer, or retry one that failed. */
  regenerate(key, model) {
    const question = questionOf(this.state, key);
    if (!question || runningAnswer(this.state)) return;
    const { id, turn: unsentTurn, content: message, parent, replaces } = question;
    const turn = id ? newTurnId() : unsentTurn; // the server may have got the question after all
    this.#advance(id ? { type: "regenerated", key, turn } : { type: "resent", turn });
    const content = id ? { regenerate: id } : { message, parent, replaces };
    this.#sender.send(this.#queue, { turn, ...content, model });
  }

  /** Remove a question that the server does not have. */
  discard(key) {
    const { turn } = this.#find(key);
    this.#unsent.remove(turn);
    this.#advance({ type: "discarded", turn });
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

  /** Stop the running answer; a question that has not begun is kept, and not sent. */
  async stop() {
    const running = runningAnswer(this.state);
    if (!running) return;
    const isStopping = await stopTurn(running.turn).then(() => true, () => false);
    if (isStopping) return; // the stream reports the result
    if (this.#sender.cancel(running.key)) this.#fail(running.key, new ApiError(0, "unsent"));
    else if (this.#find(running.key)?.streaming) stopTurn(running.turn).catch(() => {}); // it began
  }

  #findQueue(id) {
    const queue = this.#queues.get(id) ?? new QuestionQueue(id, () => this.#load(queue));
    if (id) this.#queues.set(id, queue);
    return queue;
  }

  async #load(queue) {
    const load = ++this.#loads;
    this.#isStale = true;
    const isStale = () => load !== this.#loads || queue !== this.#queue;
    try {
      const conversation = await readConversation(queue.id);
      queue.isLoaded = true;
      if (isStale()) return;
      this.#delegate.onConnected();
      if (this.#isNewerThan(conversation)) return;
      this.#isStale = false;
      for (const { turn } of conversation.messages) if (turn) this.#unsent.remove(turn);
      this.#advance({ type: "opened", conversation });
      this.#attach(this.#findAnswer(conversation.running));
    } catch (error) {
      if (!isStale()) this.#onLoadFailed(error);
      throw error;
    }
  }

  // The text of a question is worth more than the notice that its conversation is gone.
  #onLoadFailed(error) {
    const isKept = error.type === "not_found" && this.state.messages.some(isUnsent);
    if (isKept) this.#advance({ type: "rejected", failure: requestFailure(error) });
    else this.#delegate.onOpenFailed(error);
  }

  async #offerUnsent(queue) {
    const isSending = (turn) => this.#sender.isSending(turn);
    const isHere = ({ place }) => (queue.id ? place === queue.id : isNewPlace(place));
    const isElsewhere = ({ turn, place }) => isSending(turn) && place !== queue.place;
    const unsent = await this.#unsent.list();
    const questions = unsent.filter((one) => isHere(one) && !isElsewhere(one));
    if (queue !== this.#queue || questions.length === 0) return;
    // Questions that are shown together begin one conversation, unless another one is on its way.
    const begun = unsent.filter(isElsewhere).map(({ place }) => place);
    const movable = questions.filter(({ place }) => !begun.includes(place));
    for (const { place } of movable) this.#unsent.move(place, queue.place);
    this.#advance({ type: "offered", questions, isSending });
    if (queue.id) return;
    for (const { turn } of questions) if (!isSending(turn)) this.#followBegun(queue, turn);
  }

  // The page may have been closed after the server had begun the turn, before it said where.
  async #followBegun(queue, turn) {
    const { status } = await diagnoseStream(streamUrl({ turn }));
    if (status === StreamStatus.AVAILABLE && queue === this.#queue) this.regenerate(turn);
  }

  // The streaming turn has ended, or begun, since: at its end the page loads it again.
  #isNewerThan({ id, running }) {
    const answer = id === this.state.id && runningAnswer(this.state);
    return answer && this.#answers.has(answer.key) && answer.turn !== running;
  }

  #attach(answer) {
    if (!answer?.streaming || this.#answers.has(answer.key)) return;
    this.#loads++; // a load that is in flight does not know this answer
    this.#answers.attach(answer.key);
  }

  #find(key) {
    return this.state.messages.find((message) => message.key === key);
  }

  #findAnswer(turn) {
    return this.state.messages.find((one) => one.turn === turn && one.role === "assistant");
  }

  #onStep(action) {
    if (action.type === "turnEnded" || action.type === "turnFailed") {
      this.#sender.begin(action.key);
      return this.#finish(action);
    }
    const wait = this.#find(action.key)?.wait;
    this.#advance(action);
    if (action.type === "turnStarted") this.#onTurnStart(action);
    const isNewWait = action.type === "waitReported" && !isSameWait(wait, action.wait, Date.now());
    if (isNewWait) this.#delegate.onWaitBegin(action.wait);
  }

  #onTurnStart({ key, turn }) {
    const queue = this.#sender.begin(key);
    if (queue && !queue.id && turn.conversation) this.#begin(queue, turn.conversation);
    if (queue && queue !== this.#queue) this.#answers.close(key); // the user has left it
    if (this.#find(key)) this.#loads++; // a load that is in flight does not know this turn
    this.#delegate.onListChange();
    const question = questionOf(this.state, key);
    const isElsewhere = question?.replaces && !question.left; // an edit of a message not shown
    if (this.#isStale || isElsewhere) this.refresh();
  }

  #begin(queue, id) {
    this.#unsent.move(queue.place, id);
    queue.id = queue.place = id;
    this.#queues.set(id, queue);
    if (queue === this.#queue) this.#advance({ type: "begun", id });
    this.#delegate.onConversationBegin();
  }

  #finish(action) {
    const question = questionOf(this.state, action.key);
    const isShown = Boolean(this.#find(action.key));
    this.#answers.close(action.key);
    this.#advance(action);
    this.#delegate.onListChange();
    if (!isShown) return; // the user has left its conversation
    if (this.#isStale || this.#needsRefresh(question, action.key)) this.refresh();
  }

  // Only the server knows the versions, and the branch to show if an answer stays empty.
  #needsRefresh(question, key) {
    const answer = this.#find(key);
    if (question && isUnsent(question)) return Boolean(question.replaces);
    if (!answer?.id || !answer.content || !this.#sender.hasSent(key)) return true;
    return Boolean(answer.alternatives || question?.alternatives);
  }

  // An attached turn that the server does not know ended long ago: the history has its answer.
  #onRejected(key, error) {
    if (error.type === "not_found" && !this.#sender.hasSent(key)) this.#reload(key);
    else this.#fail(key, error);
  }

  #fail(key, error) {
    const isShown = Boolean(this.#find(key));
    this.#finish({ type: "turnFailed", key, failure: requestFailure(error) });
    if (!isShown) this.#delegate.onChangeFailed(error);
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
