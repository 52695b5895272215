/** Requests to the JSON API, and the one shape that every failure takes. */

import { strings } from "../strings/strings.js";

/** A refused or failed request: the server's own words where it had any; status 0 when it was not reached. */
export class ApiError extends Error {
  constructor(status, type, message) {
    super(message);
    this.status = status;
    this.type = type;
  }

  /** Whether the same request may well succeed a little later. */
  get passing() {
    return this.status === 0 || this.status === 429 || this.status >= 502;
  }
}

/** A page of conversations, newest first, and the cursor of the next page or null. */
export function listConversations(cursor = null, limit = 30) {
  return request(`/api/conversations/?${query({ limit, cursor })}`);
}

/** A new, empty conversation. */
export function createConversation() {
  return request("/api/conversations/", "POST", {});
}

/** One conversation with its last messages, or those before the message `before`. */
export function readConversation(id, before = null) {
  return request(`/api/conversations/${encodeURIComponent(id)}?${query({ limit: 100, before })}`);
}

/** Gives a conversation another title. */
export function renameConversation(id, title) {
  return request(`/api/conversations/${encodeURIComponent(id)}`, "PATCH", { title });
}

/** Shows the branch through a message, down to its newest end. */
export function chooseBranch(id, message) {
  return request(`/api/conversations/${encodeURIComponent(id)}`, "PATCH", { branch: message });
}

/** Deletes a conversation. */
export function deleteConversation(id) {
  return request(`/api/conversations/${encodeURIComponent(id)}`, "DELETE", {});
}

/** What the server is: model, models, demo, message_max. */
export function readInfo() {
  return request("/api/info");
}

/** Stops a running answer; what was made of it is kept. */
export function stopTurn(turn) {
  return request(`/api/turns/${encodeURIComponent(turn)}/stop`, "POST", {});
}

/** The address of an answer's event stream. */
export function streamUrl(parameters) {
  return `/api/chat_stream/?${query(parameters)}`;
}

/** Begins a turn whose question is too long for an address; resolves when the server has taken it. */
export async function beginTurn(question) {
  const reading = new AbortController();
  const response = await send("/api/chat_stream/", {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: "text/event-stream" },
    body: JSON.stringify(question),
    signal: reading.signal,
  });
  if (!response.ok) throw await errorOf(response);
  await response.body.getReader().read();
  reading.abort();
}

/** Why a stream was refused: an ApiError, or null when it would be given now; `ended` when nothing is left of it. */
export async function whyRefused(url) {
  const reading = new AbortController();
  try {
    const response = await send(url, { headers: { Accept: "text/event-stream" }, signal: reading.signal });
    if (!response.ok) return { error: await errorOf(response), ended: false };
    return { error: null, ended: response.status === 204 };
  } catch (error) {
    return { error, ended: false };
  } finally {
    reading.abort();
  }
}

async function request(path, method = "GET", body = null) {
  const headers = { Accept: "application/json" };
  if (body) headers["Content-Type"] = "application/json";
  const response = await send(path, { method, headers, body: body && JSON.stringify(body) });
  if (!response.ok) throw await errorOf(response);
  return response.status === 204 ? null : response.json().catch(() => null);
}

async function send(path, options) {
  try {
    return await fetch(path, { credentials: "same-origin", ...options });
  } catch {
    throw new ApiError(0, "unreachable", strings.notReached);
  }
}

async function errorOf(response) {
  const { error } = await response.json().catch(() => ({}));
  return new ApiError(response.status, error?.type ?? "http", error?.message ?? strings.notUnderstood(response.status));
}

// An empty value says something too: a question without a parent.
function query(parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined);
  return new URLSearchParams(given).toString();
}
