/**
 * Send requests to the JSON API; every failure is an ApiError. URLs are relative to the page, so
 * they work under any path prefix.
 */

/**
 * A request that failed. `status` is 0 and `type` is `server_unreachable` without a response.
 * `retryAfterS` is the time in seconds after which to send it again, or 0 if the server named none.
 */
export class ApiError extends Error {
  constructor(status, type, message, retryAfterS = 0) {
    super(message);
    this.status = status;
    this.type = type;
    this.retryAfterS = retryAfterS;
  }

  /** Whether the same request may succeed a little later. */
  get isRetryable() {
    return this.status === 0 || this.status === 429 || this.status >= 502;
  }
}

const READY_TIMEOUT_MS = 2000;

/** Whether a stream's URL can be opened. */
export const StreamStatus = Object.freeze({
  AVAILABLE: "available",
  EXPIRED: "expired", // the server has no more frames of it
  REJECTED: "rejected",
});

/** Read a page of conversations, newest first, and the cursor of the next page or null. */
export function listConversations(cursor = null, limit = 30) {
  return request(`api/conversations/?${encodeQuery({ limit, cursor })}`);
}

/** Create an empty conversation. */
export function createConversation() {
  return request("api/conversations/", "POST", {});
}

/** Read a conversation and its last messages, or those before the message `before`. */
export function readConversation(id, before = null) {
  return request(`${conversationPath(id)}?${encodeQuery({ limit: 100, before })}`);
}

/** Change a conversation's title. */
export function renameConversation(id, title) {
  return request(conversationPath(id), "PATCH", { title });
}

/** Make the newest branch through a message the current one. */
export function selectBranch(id, message) {
  return request(conversationPath(id), "PATCH", { branch: message });
}

/** Delete a conversation. */
export function deleteConversation(id) {
  return request(conversationPath(id), "DELETE", {});
}

/** Stop the running answers of all conversations, and delete the conversations. */
export function deleteConversations() {
  return request("api/conversations/", "DELETE", {});
}

/** End the session. */
export function signOut() {
  return request("api/logout", "POST", {});
}

/** Read the server's description: model, models, demo, message_max. */
export function readInfo() {
  return request("api/info");
}

/** Return whether the server is ready; true as well if that cannot be found out. */
export async function isReady() {
  const signal = AbortSignal.timeout(READY_TIMEOUT_MS);
  const response = await fetch("readyz", { cache: "no-store", signal }).catch(() => null);
  return response?.status !== 503;
}

/** Stop a running turn; the server stores the partial answer. */
export function stopTurn(turn) {
  return request(`api/turns/${encodeURIComponent(turn)}/stop`, "POST", {});
}

/** Return the URL of a turn's event stream. */
export function streamUrl(parameters) {
  return `api/chat_stream/?${encodeQuery(parameters)}`;
}

/** Return the URL of the event channel, which begins after an event, or with `reset`. */
export function eventsUrl(lastEventId) {
  return `api/events/?${encodeQuery({ last_event_id: lastEventId })}`;
}

/**
 * Begin a turn whose question is too long for a URL. Return 0 once the server has begun it, or the
 * time in ms after which to send the question again: a server that is stopping begins no turn.
 */
export async function beginTurn(question) {
  const controller = new AbortController();
  const response = await send("api/chat_stream/", {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: "text/event-stream" },
    body: JSON.stringify(question),
    signal: controller.signal,
  });
  if (!response.ok) throw await readError(response);
  const head = await readHead(response.body);
  controller.abort();
  return head.includes("event:") ? 0 : Number(/^retry: (\d+)/.exec(head)?.[1] ?? 1000);
}

/** Find out why a stream did not open: return its StreamStatus, and an ApiError if rejected. */
export async function diagnoseStream(url) {
  const controller = new AbortController();
  try {
    const headers = { Accept: "text/event-stream" };
    const response = await send(url, { headers, signal: controller.signal });
    if (!response.ok) throw await readError(response);
    const { AVAILABLE, EXPIRED } = StreamStatus;
    return { status: response.status === 204 ? EXPIRED : AVAILABLE, error: null };
  } catch (error) {
    return { status: StreamStatus.REJECTED, error };
  } finally {
    controller.abort();
  }
}

// Read a stream up to its first event, or to its end.
async function readHead(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (let head = ""; ; ) {
    const { value = "", done } = await reader.read();
    head += value;
    if (done || head.includes("event:")) return head;
  }
}

function conversationPath(id) {
  return `api/conversations/${encodeURIComponent(id)}`;
}

async function request(path, method = "GET", body = null) {
  const headers = { Accept: "application/json" };
  if (body) headers["Content-Type"] = "application/json";
  const response = await send(path, { method, headers, body: body && JSON.stringify(body) });
  if (!response.ok) throw await readError(response);
  return response.status === 204 ? null : response.json().catch(() => null);
}

async function send(path, options) {
  try {
    return await fetch(path, { credentials: "same-origin", ...options });
  } catch {
    throw new ApiError(0, "server_unreachable", "");
  }
}

async function readError(response) {
  const body = await response.json().catch(() => null);
  const { type = "http", message = "" } = body?.error ?? {};
  const retryAfterS = Number(response.headers.get("Retry-After")) || 0; // not if it is a date
  return new ApiError(response.status, type, message, retryAfterS);
}

// An empty value is sent, because it has a meaning: `parent=` is a first question.
function encodeQuery(parameters) {
  const isGiven = ([, value]) => value !== null && value !== undefined;
  return new URLSearchParams(Object.entries(parameters).filter(isGiven)).toString();
}
