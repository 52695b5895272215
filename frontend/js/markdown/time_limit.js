/**
 * Stop work that takes too long, because a hostile text can choose its cost. The work calls
 * `checkTime` at each step.
 */

let deadline = Infinity; // in ms, on the clock of performance.now()

export class OutOfTime extends Error {}

/** Return the result of `work()`; its calls of `checkTime` throw OutOfTime after `limitMs`. */
export function limitTime(limitMs, work) {
  deadline = performance.now() + limitMs;
  try {
    return work();
  } finally {
    deadline = Infinity;
  }
}

/** Throw OutOfTime if the current work has reached its limit. */
export function checkTime() {
  if (performance.now() > deadline) throw new OutOfTime("The text takes too long to render.");
}
