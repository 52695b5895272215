/**
 * Build and change the messages of a conversation. Pure.
 *
 * A message's `key` stays the same while the message is shown, because its `id` is known only once
 * the server has sent it. An answer's key is the id under which this page submitted its turn.
 */

import { currentName, emptyFailure } from "./failure.js";

/** Return a question that the server does not have yet; it may replace the question `replaces`. */
export function newQuestion(turn, content, replaces) {
  return { key: `question-${turn}`, id: "", role: "user", turn, content, replaces };
}

/** Return whether a message is a question that the server does not have yet. */
export function isUnsent({ role, id }) {
  return role === "user" && !id;
}

/** Return an empty answer that is streaming. */
export function newAnswer(turn) {
  const empty = { content: "", reasoning: "", streaming: true };
  return { key: turn, id: "", role: "assistant", turn, ...empty };
}

/** Return the server's version of a message; it keeps the key and the failure of a known one. */
export function fromServer(message, known) {
  const shown = known.find((other) => isSame(other, message));
  const taken = {
    key: shown?.key ?? message.id,
    id: message.id,
    parent: message.parent,
    alternatives: message.alternatives,
    role: message.role,
    content: message.content,
    reasoning: message.reasoning ?? "",
    turn: message.turn,
    streaming: false,
    failure: shown?.content === message.content ? shown.failure : undefined,
    storedFailure: message.failure, // shown if the answer is the last one
    ...readReport(message),
  };
  return message.role === "assistant" ? conclude(taken) : taken;
}

/**
 * Return an answer that has ended. Without text it has a failure. A seam at the end of the text is
 * none: the continuation added nothing.
 */
export function conclude(answer) {
  const length = [...answer.content].length;
  const isEmpty = !answer.content.trim();
  return {
    ...answer,
    streaming: false,
    continued: answer.continued?.filter(({ at }) => at < length),
    failure: answer.failure ?? (isEmpty ? emptyFailure(answer) : undefined),
  };
}

/**
 * Return the reported fields of an answer. The token counts are inside `usage` or next to it.
 * Fields that were not reported are absent.
 */
export function readReport(report) {
  const usage = report.usage ?? report;
  const fields = {
    model: report.model,
    finishReason: report.finish_reason,
    continued: report.continued?.map((seam) => ({ ...seam, why: currentName(seam.why) })),
    tokens: usage.total_tokens || sum(usage.prompt_tokens, usage.completion_tokens),
    estimated: Boolean(usage.estimated),
  };
  const isReported = ([, value]) => value !== undefined && value !== null;
  return Object.fromEntries(Object.entries(fields).filter(isReported));
}

/** Return the message with its id, which replaces "" among its alternatives. */
export function withId(message, id) {
  const alternatives = message.alternatives?.map((other) => other || id);
  return { ...message, id: id ?? message.id, ...(alternatives && { alternatives }) };
}

/**
 * Return the ids of a message's versions. An answer that failed without text is none: the server
 * does not store it. Only an answer from the server has a parent.
 */
export function versionsOf({ id, content, parent, alternatives }) {
  return alternatives ?? (id && (content || parent) ? [id] : []);
}

/** Return the message without its failure, if it has a text to show instead. */
export function clearFailure(message) {
  return message.failure && message.content.trim() ? { ...message, failure: undefined } : message;
}

function isSame(shown, message) {
  if (shown.id === message.id) return true;
  return Boolean(message.turn) && shown.turn === message.turn && shown.role === message.role;
}

function sum(prompt, completion) {
  return Number.isFinite(prompt) && Number.isFinite(completion) ? prompt + completion : undefined;
}
