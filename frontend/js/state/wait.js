/** The waits of a running answer: for the next request to the model, or for a free slot. Pure. */

const QUEUE_TIMEOUT_MS = 15_000; // the server repeats a place in the queue every 5 s

/**
 * Return a wait from its frame, received at `now` (ms since 1970): `why`, the `position` in the
 * queue if there is one, and `until`, the time at which the wait is over.
 */
export function readWait({ why, seconds, position }, now) {
  return { why, position, until: now + (position ? QUEUE_TIMEOUT_MS : (seconds ?? 0) * 1000) };
}

/** Return whether `next` reports the same wait as `wait`, which may be over or absent. */
export function isSameWait(wait, next, now) {
  return Boolean(wait) && wait.why === next.why && wait.until > now;
}
