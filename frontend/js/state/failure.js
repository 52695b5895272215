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

/** Return the failure of a request, from its ApiError. */
export function requestFailure({ type = "internal", message = "", status }) {
  return { source: FailureSource.REQUEST, type, message, status };
}

/** Return the failure of a turn, from its frame `failed` or from the page's own knowledge. */
export function turnFailure({ type, message = "" }) {
  return { source: FailureSource.TURN, type: currentName(type), message };
}
