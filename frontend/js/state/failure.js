/** Failures as the page keeps them: source, type, and the server's message in English. Pure. */

/** The source of a failure; the same type has another meaning for a request than for a turn. */
export const FailureSource = Object.freeze({
  REQUEST: "request", // an HTTP error: no turn began
  TURN: "turn", // the last frame of a turn
});

// Names of earlier releases, which stored histories contain.
const RENAMED = new Map([
  ["broke_off", "connection_lost"],
  ["nonsense", "invalid_response"],
  ["store", "history_unavailable"],
]);

/** Return the current name of a failure's type or of a seam's reason. */
export function currentName(name) {
  return RENAMED.get(name) ?? name;
}

/** The steps that can help after a failure. */
export const Remedy = Object.freeze({
  RETRY: "retry", // ask again
  EDIT: "edit", // change the question: the same one would fail again
  NEW_CHAT: "newChat", // ask in a new conversation: in this one, every question would fail
  RELOAD: "reload", // load the page again: it does not fit the server, or the server's address
});

// After every other failure the user can ask again, if necessary once the operator has changed a
// setting.
const REMEDIES = {
  [FailureSource.REQUEST]: {
    [Remedy.EDIT]: ["blocked", "moderated", "too_large"],
    [Remedy.NEW_CHAT]: ["conversation_full", "not_found", "unreadable"],
    [Remedy.RELOAD]: [
      "bad_request", "forbidden", "misdirected", "not_acceptable", "sign_in_expired",
      "unauthorised",
    ],
  },
  [FailureSource.TURN]: {
    [Remedy.EDIT]: ["context_length", "length", "moderated", "refused", "withheld"],
  },
};

// The failure that the page reports for an answer without text, by its finish reason.
const EMPTY = {
  length: "length",
  content_filter: "withheld",
  refusal: "withheld",
  tool_calls: "tool_call",
  stopped: "stopped",
  failed: "incomplete",
  interrupted: "incomplete",
};

/** Return what the user can do after a failure. */
export function remedyOf({ source, type, status }) {
  if (type === "http" && [404, 405].includes(status)) return Remedy.RELOAD;
  const found = Object.entries(REMEDIES[source]).find(([, types]) => types.includes(type));
  return found?.[0] ?? Remedy.RETRY;
}

/** Return whether the server's limits or models are no longer those that the page has read. */
export function isOutdated({ source, type }) {
  return source === FailureSource.REQUEST && ["too_large", "unknown_model"].includes(type);
}

/** Return the failure of a request, from its ApiError. */
export function requestFailure({ type = "internal", message = "", status, retryAfterS }) {
  // A proxy's 413 means the same as the server's.
  const name = status === 413 ? "too_large" : type;
  return { source: FailureSource.REQUEST, type: name, message, status, retryAfterS };
}

/** Return the failure of a turn, from its frame `failed` or from the page's own knowledge. */
export function turnFailure({ type, message = "" }) {
  return { source: FailureSource.TURN, type: currentName(type), message };
}

/** Return the failure of an answer that ended without text, but whose turn did not fail. */
export function emptyFailure({ finishReason, reasoning }) {
  return turnFailure({ type: EMPTY[finishReason] ?? (reasoning ? "only_reasoning" : "empty") });
}
