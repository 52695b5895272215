/**
 * Send requests to the JSON API; every failure is an ApiError. URLs are relative to the page, so
 * they work under any path prefix.
 */

import { ApiError, checkStream, readJson } from "./response.js";

const READY_TIMEOUT_MS = 2000;

/** Whether a stream's URL can be opened. */
export const StreamStatus = Object.freeze({
  AVAILABLE: "available",
  EXPIRED: "expired", // the server has no more frames of it
  REJECTED: "rejected",
});

/** Read a page of conversations, newest first, and the cursor of the next page or null. */
export function listConversations(cursor = null, limit = 30) {
  const isPage = ({ conversations }) => Array.isArray(conversations);
  return request(`api/conversations/?${encodeQuery({ limit, cursor })}`, isPage);
}

/** Read a conversation and its last messages, or those before the message `before`. */
export function readConversation(id, before = null) {
  const query = encodeQuery({ limit: 100, before });
  return request(`${conversationPath(id)}?${query}`, ({ messages }) => Array.isArray(messages));
}

/** Change a conversation's title. */
export function renameConversation(id, title) {
  return request(conversationPath(id), isConversation, "PATCH", { title });
}

/** Make the newest branch through a message the current one. */
export function selectBranch(id, message) {
  return request(conversationPath(id), isConversation, "PATCH", { branch: message });
}

/** Delete a conversation. */
export function deleteConversation(id) {
  return request(conversationPath(id), isNothing, "DELETE", {});
}

/** Stop the running answers of all conversations, and delete the conversations. */
export function deleteConversations() {
  return request("api/conversations/", isNothing, "DELETE", {});
}

/** End the session. */
export function signOut() {
  return request("api/logout", isNothing, "POST", {});
}

/** Read the server's description: model, models, demo, message_max. */
export function readInfo() {
  return request("api/info", ({ models }) => Array.isArray(models));
}

/** Return whether the server is ready; true as well if that cannot be found out. */
export async function isReady() {
  const signal = AbortSignal.timeout(READY_TIMEOUT_MS);
  const response = await fetch("readyz", { cache: "no-store", signal }).catch(() => null);
  return response?.status !== 503;
}

/** Stop a running turn; the server stores the partial answer. */
export function stopTurn(turn) {
  return request(`api/turns/${encodeURIComponent(turn)}/stop`, isNothing, "POST", {});
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
 * Begin a turn by POST. Return 0 once the server has begun it, or the time in ms after which to
 * send the question again: a server that is stopping begins no turn.
 */
export async function beginTurn(question) {
  const controller = new AbortController();
  const response = await send("api/chat_stream/", {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: "text/event-stream" },
    body: JSON.stringify(question),
    signal: controller.signal,
  });
  await checkStream(response);
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
    await checkStream(response);
    const { AVAILABLE, EXPIRED } = StreamStatus;
    return { status: response.status === 204 ? EXPIRED : AVAILABLE, error: null };
  } catch (error) {
    return { status: StreamStatus.REJECTED, error };
  } finally {
    controller.abort();
  }
}

// Read a stream up to its first event, or to its end or break.
async function readHead(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (let head = ""; ; ) {
    const { value = "", done } = await reader.read().catch(() => ({ done: true }));
    head += value;
    if (done || head.includes("event:")) return head;
  }
}

function conversationPath(id) {
  return `api/conversations/${encodeURIComponent(id)}`;
}

async function request(path, isExpected, method = "GET", body = null) {
  const headers = { Accept: "application/json" };
  if (body) headers["Content-Type"] = "application/json";
  const response = await send(path, { method, headers, body: body && JSON.stringify(body) });
  return readJson(response, isExpected);
}

// A redirect is not followed: it leads to a sign-in, often on another origin.
async function send(path, options) {
  try {
    return await fetch(path, { credentials: "same-origin", redirect: "manual", ...options });
  } catch {
    throw new ApiError(0, "server_unreachable");
  }
}

function isConversation({ id }) {
  return typeof id === "string";
}

function isNothing() {
  return false; // the response is 204
}

// An empty value is sent, because it has a meaning: `parent=` is a first question.
function encodeQuery(parameters) {
  const isGiven = ([, value]) => value !== null && value !== undefined;
  return new URLSearchParams(Object.entries(parameters).filter(isGiven)).toString();
}
