/** Render many texts without a long task, so that a page of costly texts can still be used. */

const TASK_MS = 100;

let spent = 0; // ms of this task
let isScheduled = false;
const waiting = [];

/** Run `step` now, or in a later task if this one has rendered for long. Return whether it ran. */
export function renderInTime(step) {
  const isNow = !waiting.length && spent < TASK_MS;
  if (isNow) run(step);
  else waiting.push(step);
  if (!isScheduled) schedule();
  return isNow;
}

function schedule() {
  isScheduled = true;
  setTimeout(() => {
    isScheduled = false;
    spent = 0;
    while (waiting.length && spent < TASK_MS) run(waiting.shift());
    if (waiting.length) schedule();
  });
}

function run(step) {
  const start = performance.now();
  step();
  spent += performance.now() - start;
}
