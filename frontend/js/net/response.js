/**
 * Read a response of the JSON API, and recognise one that is not Holdline's: of a sign-in that has
 * expired, a firewall, a proxy, or a network with a login page.
 *
 * Holdline's errors have the shape `{"error": {"type", "message"}}`, its streams the type
 * text/event-stream. It neither redirects requests for `api/` nor answers them with 401.
 */

// 419 and 440: the session of a framework or of IIS has expired. 511: the network has a login page.
const SIGN_IN_STATUSES = new Set([401, 403, 419, 440, 511]);

/** A request that failed. `status` is 0 and `type` is `server_unreachable` without a response. */
export class ApiError extends Error {
  /** `retryAfterS` is the response's Retry-After in seconds; `isForeign`: it is not Holdline's. */
  constructor(status, type, message = "", { retryAfterS = 0, isForeign = false } = {}) {
    super(message);
    this.status = status;
    this.type = type;
    this.retryAfterS = retryAfterS;
    this.isForeign = isForeign;
  }

  /** Whether the same request may succeed a little later. */
  get isRetryable() {
    return this.type === "server_unreachable" || this.status === 429 || this.status >= 502;
  }
}

/** Return the JSON that `isExpected` accepts, or null for 204; throws ApiError. */
export async function readJson(response, isExpected) {
  if (response.status === 204) return null;
  if (!response.ok) throw await readError(response);
  const body = await parse(response);
  if (!isObject(body) || !isExpected(body)) throw describeForeign(response);
  return body;
}

/** Throw an ApiError unless the response is an event stream, or 204. */
export async function checkStream(response) {
  if (!response.ok) throw await readError(response);
  const type = response.headers.get("Content-Type") ?? "";
  const isStream = type.split(";")[0].trim().toLowerCase() === "text/event-stream";
  if (response.status !== 204 && !isStream) throw describeForeign(response);
}

async function readError(response) {
  const { type, message } = (await parse(response))?.error ?? {};
  const isOurs = typeof type === "string" && typeof message === "string";
  if (!isOurs || response.status === 401) return describeForeign(response);
  const seconds = Number(response.headers.get("Retry-After"));
  return new ApiError(response.status, type, message, { retryAfterS: seconds > 0 ? seconds : 0 });
}

function describeForeign({ status }) {
  const isSignIn = status < 400 || SIGN_IN_STATUSES.has(status); // a redirect has the status 0
  return new ApiError(status, isSignIn ? "sign_in_expired" : "http", "", { isForeign: true });
}

async function parse(response) {
  try {
    return await response.json();
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    throw new ApiError(0, "server_unreachable"); // the body is incomplete
  }
}

function isObject(value) {
  return typeof value === "object" && value !== null;
}
