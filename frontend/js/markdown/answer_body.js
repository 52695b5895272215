/** Show the text of an answer as Markdown, or as plain text with a note if that is impossible. */

import { markSeams } from "./continuation_mark.js";
import { patchAfter } from "./patch.js";
import { renderMarkdown } from "./render.js";
import { StreamingMarkdown } from "./streaming_markdown.js";
import { StreamingText } from "./streaming_text.js";
import { limitTime } from "./time_limit.js";
import { renderInTime } from "./render_queue.js";

const FRAME_LIMIT_MS = 200; // while the text streams
const SMOOTH_FRAME_MS = 50;
const MAX_DELAY_MS = 1000; // sum of the time by which frames of an answer exceed SMOOTH_FRAME_MS
const TEXT_LIMIT_MS = 300; // for the complete text
const LIMIT_MS_PER_CHARACTER = 0.005; // a slow device needs about this for an ordinary text

export class AnswerBody {
  #element;
  #note;
  #shown = {}; // the last answer
  #writer = null; // while the answer streams
  #delay = 0; // of its frames, in ms

  /** `note` is shown while the text in `element` is plain. */
  constructor(element, note) {
    this.#element = element;
    this.#note = note;
  }

  /** Show the answer as it is now. */
  update(answer) {
    const before = this.#shown;
    this.#shown = answer;
    if (answer.streaming) this.#stream(answer.content, before.content ?? "");
    else if (this.#writer || !isSameText(answer, before)) this.#finish(answer);
  }

  #stream(text, before) {
    this.#writer ??= new StreamingMarkdown(this.#element);
    const added = LIMIT_MS_PER_CHARACTER * Math.max(0, text.length - before.length);
    const left = MAX_DELAY_MS - this.#delay;
    const start = performance.now();
    try {
      limitTime(Math.min(FRAME_LIMIT_MS, left) + added, () => this.#writer.write(text));
      this.#delay += Math.max(0, performance.now() - start - SMOOTH_FRAME_MS - added);
    } catch (error) {
      this.#writer = this.#writePlain(text, error);
    }
  }

  #finish(answer) {
    const writer = this.#writer;
    this.#writer = null;
    const isCurrent = () => !this.#writer && this.#shown.content === answer.content;
    const again = () => renderInTime(() => isCurrent() && this.#render(answer));
    const isNow = renderInTime(() => {
      // Not the text but other work of the device may have taken the time.
      if (isCurrent() && !this.#render(answer, writer)) setTimeout(again);
    });
    if (!isNow && !writer) this.#element.textContent = answer.content;
  }

  // Return whether the text is shown as Markdown.
  #render({ content, continued }, writer) {
    const limit = TEXT_LIMIT_MS + LIMIT_MS_PER_CHARACTER * content.length;
    try {
      limitTime(limit, () => {
        const isShown = writer?.finish(content);
        if (!isShown) patchAfter(null, this.#element, [...renderMarkdown(content).childNodes]);
        if (continued?.length) markSeams(this.#element, content, continued);
      });
      this.#note.hidden = true;
      return true;
    } catch (error) {
      this.#writePlain(content, error);
      return false;
    }
  }

  #writePlain(text, error) {
    console.warn("An answer is shown as plain text.", error);
    const writer = new PlainText(this.#element);
    writer.write(text);
    this.#note.hidden = false;
    return writer;
  }
}

/** Takes the place of StreamingMarkdown until the answer is complete. */
class PlainText {
  #text;

  constructor(body) {
    const element = document.createElement("div");
    element.className = "plain-text";
    body.replaceChildren(element);
    this.#text = new StreamingText(element);
  }

  write(text) {
    this.#text.write(text);
  }

  finish() {
    return false;
  }
}

function isSameText(message, before) {
  const { continued: seams = [] } = message;
  const { continued: oldSeams = [] } = before;
  if (message.content !== before.content || seams.length !== oldSeams.length) return false;
  return seams.every(({ at }, index) => at === oldSeams[index].at);
}
