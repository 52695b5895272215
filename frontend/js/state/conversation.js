/** The state of the open conversation, and each step that changes it. Pure: no DOM, no network. */

import { requestFailure, turnFailure } from "./failure.js";
import {
  clearFailure, conclude, fromServer, isUnsent, newAnswer, newQuestion, readReport, versionsOf,
  withId,
} from "./message.js";

/** The state while no conversation is open. */
export const emptyConversation = Object.freeze({
  id: null,
  title: "",
  messages: [],
  earlier: false,
});

/** Return the state after `action`, whose `type` is the name of a step below. */
export function reduce(state, action) {
  return steps[action.type](state, action);
}

/** Return the answer that is streaming, or undefined. */
export function runningAnswer(state) {
  return state.messages.findLast((message) => message.streaming);
}

/** Return the question of the answer `key`, or undefined. */
export function questionOf(state, key) {
  const before = state.messages.slice(0, Math.max(0, indexOf(state, key)));
  return before.findLast((message) => message.role === "user");
}

const steps = {
  // Its id is null for a new conversation.
  opening: (state, { id }) => ({ ...emptyConversation, id }),

  opened(state, { conversation }) {
    const known = state.id === conversation.id ? state.messages : [];
    const messages = conversation.messages.map((message) => fromServer(message, known));
    // Earlier messages that the user has loaded stay.
    const before = known.findIndex((message) => message.id && message.id === messages[0]?.id);
    if (conversation.running) addRunningAnswer(messages, conversation.running, known);
    else addRetry(messages, known.filter(({ turn }) => !isUnsentTurn(known, turn)));
    return {
      id: conversation.id,
      title: conversation.title,
      messages: [...known.slice(0, Math.max(0, before)), ...addUnsent(messages, known)],
      earlier: before > 0 ? state.earlier : Boolean(conversation.earlier),
    };
  },

  earlierLoaded(state, { conversation }) {
    const earlier = conversation.messages.map((message) => fromServer(message, state.messages));
    const messages = [...earlier, ...state.messages];
    return { ...state, messages, earlier: Boolean(conversation.earlier) };
  },

  begun: (state, { id }) => ({ ...state, id }),

  // The server has rejected the whole conversation: no question of it can be sent.
  rejected(state, { failure }) {
    const isUnsentAnswer = ({ key }) => isUnsentTurn(state.messages, key);
    const messages = state.messages.map((message) =>
      isUnsentAnswer(message) ? { ...message, failure, streaming: false } : message,
    );
    return { ...state, messages };
  },

  // Questions of an earlier page, or of this page before the user left the conversation.
  offered(state, { questions, isSending }) {
    const isShown = ({ turn }) => state.messages.some((message) => message.turn === turn);
    const added = questions.filter((question) => !isShown(question));
    const failure = requestFailure({ type: "unsent" });
    const pairs = added.map(({ turn, message, replaces, parent }) => [
      { ...newQuestion(turn, message, replaces), parent },
      isSending(turn) ? newAnswer(turn) : { ...newAnswer(turn), streaming: false, failure },
    ]);
    const first = state.messages.findIndex(isUnsent); // asked since the conversation was opened
    const at = first < 0 ? state.messages.length : first;
    return { ...state, messages: state.messages.toSpliced(at, 0, ...pairs.flat()) };
  },

  resent(state, { turn }) {
    const question = state.messages.find((message) => message.turn === turn && isUnsent(message));
    const { messages } = steps.discarded(state, { turn });
    return { ...state, messages: addSending(messages, question, newAnswer(turn)) };
  },

  discarded(state, { turn }) {
    return { ...state, messages: state.messages.filter((message) => message.turn !== turn) };
  },

  retitled: (state, { title }) => ({ ...state, title }),

  asked(state, { turn, question }) {
    const before = state.messages.map(clearFailure);
    return { ...state, messages: [...before, newQuestion(turn, question), newAnswer(turn)] };
  },

  edited(state, { key, turn, question }) {
    const old = state.messages[indexOf(state, key)];
    const edited = { ...newQuestion(turn, question, old.id || old.replaces), parent: old.parent };
    const { messages } = isUnsent(old) ? steps.discarded(state, old) : state;
    return { ...state, messages: addSending(messages, edited, newAnswer(turn)) };
  },

  regenerated(state, { key, turn }) {
    const at = indexOf(state, key);
    const others = versionsOf(state.messages[at]);
    const alternatives = others.length ? { alternatives: [...others, ""] } : {};
    const answer = { ...newAnswer(turn), ...alternatives };
    const [, unsent] = splitUnsent(state.messages.slice(at));
    return { ...state, messages: [...state.messages.slice(0, at), answer, ...unsent] };
  },

  turnStarted(state, { key, turn }) {
    const question = questionOf(state, key);
    const asked = question
      ? change(state, question.key, (message) => withId(message, turn.message))
      : state;
    return change(asked, key, (answer) => ({
      ...withId(answer, turn.answer),
      turn: turn.turn ?? answer.turn,
      model: turn.model ?? answer.model,
    }));
  },

  waitReported(state, { key, wait }) {
    return change(state, key, (answer) => ({ ...answer, wait }));
  },

  deltaReceived(state, { key, delta }) {
    return progress(state, key, ({ content }) => ({ content: content + delta }));
  },

  reasoningReceived(state, { key, delta }) {
    return progress(state, key, ({ reasoning }) => ({ reasoning: reasoning + delta }));
  },

  restarted(state, { key }) {
    return progress(state, key, () => ({ content: "", reasoning: "" }));
  },

  usageReceived(state, { key, report }) {
    return progress(state, key, () => readReport(report));
  },

  turnEnded(state, { key, content }) {
    return progress(state, key, (answer) => conclude({ ...answer, content }));
  },

  turnFailed(state, { key, failure }) {
    const failed = progress(state, key, (answer) => conclude({ ...answer, failure }));
    return { ...failed, messages: returnToBranch(failed.messages, questionOf(failed, key)) };
  },
};

function indexOf(state, key) {
  return state.messages.findIndex((message) => message.key === key);
}

function change(state, key, step) {
  const at = indexOf(state, key);
  return at < 0 ? state : { ...state, messages: state.messages.with(at, step(state.messages[at])) };
}

// Anything that an answer receives ends its wait.
function progress(state, key, step) {
  return change(state, key, (answer) => ({ ...answer, ...step(answer), wait: undefined }));
}

function addRunningAnswer(messages, turn, known) {
  const isShown = (message) => message.turn === turn && message.streaming;
  const answer = known.find(isShown) ?? newAnswer(turn);
  const isStored = (message) => message.turn === turn && message.role === "assistant";
  const at = messages.findIndex(isStored);
  if (at < 0) messages.push(answer);
  else messages[at] = answer;
}

// A question without a complete answer can be retried, also after a reload. A regeneration that
// failed leaves no message on the server: the old answer then shows the failure, unless the user
// has stopped the regeneration.
function addRetry(messages, known) {
  const last = known.at(-1);
  const failed = last?.failure && !last.content ? last : null;
  const canMatch = failed && known.length > 1;
  const at = canMatch ? messages.findIndex(({ id }) => id === known.at(-2).id) : -1;
  if (at >= 0 && at < messages.length - 1 && failed.failure.type !== "stopped") {
    messages[at + 1] = { ...messages[at + 1], failure: failed.failure };
  }
  const end = messages.at(-1);
  if (end?.role === "user") {
    messages.push(at >= 0 ? failed : unanswered(end));
  } else if (end?.finishReason === "failed") {
    const failure = end.failure ?? turnFailure(end.storedFailure ?? { type: "incomplete" });
    messages[messages.length - 1] = { ...end, failure };
  }
}

// A question that the server does not have yet follows its messages.
function addUnsent(messages, known) {
  const isMissing = (message) => isUnsent(message) && !isStoredTurn(messages, message.turn);
  return known.filter(isMissing).reduce((shown, unsent) => {
    const replaced = unsent.replaces && messages.find(({ id }) => id === unsent.replaces);
    const question = replaced ? { ...unsent, parent: replaced.parent } : unsent;
    const answer = known.find(({ key }) => key === question.turn);
    return answer.streaming
      ? addSending(shown, question, answer)
      : [...shown, asLast(question), answer];
  }, messages);
}

// While an edit is sent, it takes the place of the question that it replaces, or of a version of
// it. The edit keeps what it hides in `left`, because the server leaves that branch only when the
// turn begins.
function addSending(messages, question, answer) {
  const { replaces } = question;
  const isReplaced = ({ id, alternatives }) => id === replaces || alternatives?.includes(replaces);
  const at = replaces ? messages.findIndex(isReplaced) : -1;
  if (at < 0) return [...messages, asLast(question), answer];
  const [left, unsent] = splitUnsent(messages.slice(at));
  const alternatives = [...versionsOf(left[0]), ""];
  return [...messages.slice(0, at), { ...question, alternatives, left }, answer, ...unsent];
}

// The page shows the branch on which the server asks the next question.
function returnToBranch(messages, edit) {
  if (!edit?.left || !isUnsent(edit)) return messages;
  const [stored, unsent] = splitUnsent(messages);
  return [...stored, ...edit.left, ...unsent.map((one) => (one === edit ? asLast(one) : one))];
}

// A question after the server's messages hides none of them.
function asLast(question) {
  return { ...question, alternatives: undefined, left: undefined };
}

// Return the server's messages, and the questions that it does not have with their answers.
function splitUnsent(messages) {
  const turns = new Set(messages.filter(isUnsent).map(({ turn }) => turn));
  const isPart = ({ turn }) => turns.has(turn);
  return [messages.filter((message) => !isPart(message)), messages.filter(isPart)];
}

function isUnsentTurn(messages, turn) {
  return messages.some((message) => message.turn === turn && isUnsent(message));
}

function isStoredTurn(messages, turn) {
  return messages.some((message) => message.turn === turn && message.role === "user");
}

function unanswered(question) {
  const failure = turnFailure({ type: "unanswered" });
  return { ...newAnswer(`unanswered-${question.id}`), streaming: false, failure };
}
