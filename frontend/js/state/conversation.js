/**
 * The state of the open conversation, and every step it can take. Pure: no DOM, no network, no clock.
 *
 * A message's `key` stays the same for as long as it is shown (its `id` is known only once the server has
 * said it); what happens to an answer is addressed by its key, which is the turn's id it was asked under.
 */

/** No conversation yet: the empty page. */
export const nothing = Object.freeze({ id: null, title: "", messages: [], earlier: false });

/** The state after `action`, whose `type` names one of the steps below. */
export function reduce(state, action) {
  return steps[action.type](state, action);
}

/** The answer that is being written, or undefined. */
export function runningAnswer(state) {
  return state.messages.findLast((message) => message.streaming);
}

/** The question that the answer `key` belongs to, or undefined. */
export function questionOf(state, key) {
  const at = state.messages.findIndex((message) => message.key === key);
  return state.messages.slice(0, at).findLast((message) => message.role === "user");
}

const steps = {
  closed: () => nothing,

  opened(state, { conversation }) {
    const known = state.id === conversation.id ? state.messages : [];
    const messages = conversation.messages.map((message) => fromServer(message, known));
    // What the reader has scrolled back to stays shown.
    const before = known.findIndex((message) => message.id && message.id === messages[0]?.id);
    if (conversation.running) attach(messages, conversation.running, known);
    else offerRetry(messages, known);
    return {
      id: conversation.id,
      title: conversation.title,
      messages: [...known.slice(0, Math.max(0, before)), ...messages],
      earlier: before > 0 ? state.earlier : Boolean(conversation.earlier),
    };
  },

  earlierCame(state, { conversation }) {
    const messages = conversation.messages.map((message) => fromServer(message, state.messages));
    return { ...state, messages: [...messages, ...state.messages], earlier: Boolean(conversation.earlier) };
  },

  created: (state, { conversation }) => ({ ...state, id: conversation.id, title: conversation.title ?? "" }),

  retitled: (state, { title }) => ({ ...state, title }),

  asked(state, { turn, question }) {
    const before = state.messages.map(withoutComplaint);
    return { ...state, messages: [...before, newQuestion(turn, question), newAnswer(turn)] };
  },

  // The question `key` in other words: what followed it stays on the branch that it leaves.
  edited(state, { key, turn, question }) {
    const at = state.messages.findIndex((message) => message.key === key);
    const { parent, ...old } = state.messages[at];
    const edited = { ...newQuestion(turn, question), parent, alternatives: [...versions(old), ""] };
    return { ...state, messages: [...state.messages.slice(0, at), edited, newAnswer(turn)] };
  },

  // Another answer in the place of the answer `key`.
  regenerated(state, { key, turn }) {
    const at = state.messages.findIndex((message) => message.key === key);
    const others = versions(state.messages[at]);
    const answer = { ...newAnswer(turn), ...(others.length && { alternatives: [...others, ""] }) };
    return { ...state, messages: [...state.messages.slice(0, at), answer] };
  },

  began(state, { key, turn }) {
    const question = questionOf(state, key);
    const begun = question ? change(state, question.key, (asked) => named(asked, turn.message)) : state;
    return change(begun, key, (answer) => ({
      ...named(answer, turn.answer),
      turn: turn.turn ?? answer.turn,
      model: turn.model ?? answer.model,
    }));
  },

  grew: (state, { key, delta }) => change(state, key, (answer) => ({ ...answer, content: answer.content + delta })),

  thought(state, { key, delta }) {
    return change(state, key, (answer) => ({ ...answer, reasoning: answer.reasoning + delta }));
  },

  restarted: (state, { key }) => change(state, key, (answer) => ({ ...answer, content: "", reasoning: "" })),

  measured: (state, { key, report }) => change(state, key, (answer) => ({ ...answer, ...fromReport(report) })),

  ended: (state, { key, content }) => change(state, key, (answer) => ({ ...answer, content, streaming: false })),

  failed: (state, { key, failure }) => change(state, key, (answer) => ({ ...answer, failure, streaming: false })),
};

function change(state, key, step) {
  const at = state.messages.findIndex((message) => message.key === key);
  return at < 0 ? state : { ...state, messages: state.messages.with(at, step(state.messages[at])) };
}

function newQuestion(turn, content) {
  return { key: `question-${turn}`, id: "", role: "user", turn, content };
}

function newAnswer(turn) {
  return { key: turn, id: "", role: "assistant", turn, content: "", reasoning: "", streaming: true };
}

// A message that is only being made has no id yet, and stands as "" among its alternatives.
function named(message, id) {
  const alternatives = message.alternatives?.map((other) => other || id);
  return { ...message, id: id ?? message.id, ...(alternatives && { alternatives }) };
}

// What stands beside a message that is to be replaced: an answer of which nothing came was not kept.
function versions({ id, content, alternatives }) {
  return alternatives ?? (id && content ? [id] : []);
}

function withoutComplaint(message) {
  return message.failure && message.content ? { ...message, failure: undefined } : message;
}

// A question whose answer never came, or broke off, can be asked again after a reload too. Where an answer
// was wanted in another's place and did not come, the old one is shown again, and says why.
function offerRetry(messages, known) {
  const tried = known.at(-1);
  const failed = tried?.failure && !tried.content ? tried : null;
  const at = failed && known.length > 1 ? messages.findIndex(({ id }) => id === known.at(-2).id) : -1;
  if (at >= 0 && at < messages.length - 1) messages[at + 1] = { ...messages[at + 1], failure: failed.failure };
  const last = messages.at(-1);
  if (last?.role === "user") {
    const unanswered = { ...newAnswer(`unanswered-${last.id}`), streaming: false, failure: { type: "unanswered" } };
    messages.push(at >= 0 ? failed : unanswered);
  } else if (last?.finishReason === "failed") {
    messages[messages.length - 1] = { ...last, failure: last.failure ?? { type: "broken" } };
  }
}

function attach(messages, turn, known) {
  const shown = known.find((message) => message.turn === turn && message.streaming) ?? newAnswer(turn);
  const at = messages.findIndex((message) => message.turn === turn && message.role === "assistant");
  if (at < 0) messages.push(shown);
  else messages[at] = shown;
}

function fromServer(message, known) {
  const shown = known.find(
    (other) => other.id === message.id || (message.turn && other.turn === message.turn && other.role === message.role),
  );
  return {
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
    ...fromReport(message),
  };
}

// A report may hold the token counts inside `usage` or beside it; what was not reported stays undefined.
function fromReport(report) {
  const usage = report.usage ?? report;
  const reported = {
    model: report.model,
    finishReason: report.finish_reason,
    continued: report.continued,
    tokens: usage.total_tokens || sum(usage.prompt_tokens, usage.completion_tokens),
    estimated: Boolean(usage.estimated),
  };
  return Object.fromEntries(Object.entries(reported).filter(([, value]) => value !== undefined && value !== null));
}

function sum(prompt, completion) {
  return Number.isFinite(prompt) && Number.isFinite(completion) ? prompt + completion : undefined;
}
