/**
 * Keep each question from Enter until its turn has begun, so that no reload, closed tab or rejected
 * request loses it. The browser's tabs share the questions; only the tab in which a question was
 * typed shows it, until that tab is closed. The turn's id makes a question that is sent twice one.
 */

import { sharedStorage, tabStorage } from "../net/browser_storage.js";
import { sharedName } from "../net/shared_name.js";
import { holdName, listHeldNames } from "../net/tab_lock.js";
import { isNewPlace } from "./question_queue.js";

const PREFIX = `${sharedName("unsent")} `;
const TAB = sharedName("tab");
const MAX_COUNT = 20;
const MAX_LENGTH = 1_000_000; // characters of all of them; browsers allow about five million

export class UnsentQuestions {
  #tab = tabStorage.read(TAB) ?? `${TAB} ${crypto.getRandomValues(new Uint32Array(2)).join("-")}`;

  constructor() {
    tabStorage.write(TAB, this.#tab); // after a reload, the page is the same tab
    holdName(this.#tab);
  }

  /** Keep a question: its `turn`, `place` (see QuestionQueue), `message` and other fields. */
  add(question) {
    this.#write({ ...question, created: Date.now() });
    const all = this.#readAll();
    while (all.length > MAX_COUNT || lengthOf(all) > MAX_LENGTH) this.remove(all.shift().turn);
  }

  /** Move the questions of one place to another. */
  move(from, to) {
    for (const question of this.#readAll()) {
      if (question.place === from) this.#write({ ...question, place: to });
    }
  }

  /** Remove a question: its turn has begun, or the user has taken the text back. */
  remove(turn) {
    sharedStorage.remove(PREFIX + turn);
  }

  /** Remove the questions of a place, or all. */
  clear(place) {
    for (const name of sharedStorage.names(PREFIX)) {
      if (!place || read(name)?.place === place) sharedStorage.remove(name);
    }
  }

  /** Return the questions, oldest first, without those that another open tab shows. */
  async list() {
    const held = await listHeldNames();
    return this.#readAll().filter(({ tab }) => tab === this.#tab || !held.has(tab));
  }

  /** Return the conversation of the last of these questions; null if it is a new one. */
  async findConversation() {
    const newest = (await this.list()).at(-1);
    return newest && !isNewPlace(newest.place) ? newest.place : null;
  }

  #write(question) {
    sharedStorage.write(PREFIX + question.turn, JSON.stringify({ ...question, tab: this.#tab }));
  }

  #readAll() {
    const found = sharedStorage.names(PREFIX).map(read).filter(Boolean);
    return found.sort((one, other) => one.created - other.created);
  }
}

function lengthOf(questions) {
  return questions.reduce((length, { message }) => length + message.length, 0);
}

// Another version, or another application on this origin, may have stored anything.
function read(name) {
  try {
    const found = JSON.parse(sharedStorage.read(name));
    const isQuestion = [found?.turn, found?.place, found?.message, found?.tab].every(isText);
    return isQuestion && Number.isFinite(found.created) ? found : undefined;
  } catch {
    return undefined;
  }
}

function isText(value) {
  return typeof value === "string";
}
