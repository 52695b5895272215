/**
 * Send the questions of one conversation in the order in which they were typed. Each waits until
 * the conversation is loaded, and until the turn of the question before it has begun or failed. The
 * first question of a new conversation begins it, and the others follow there. If a question cannot
 * begin its own branch, those that were typed after it are not sent: they would follow another one.
 */

import { ApiError } from "../net/response.js";

const NEW_CONVERSATION = "new"; // the `conversation` of a question that begins one
const NEW_PLACE = "new "; // and random characters: two new conversations are two places

export class QuestionQueue {
  /** The conversation's id; null until its first question has begun it. */
  id;
  /** The name under which its unsent questions are kept: the id, or that of a new conversation. */
  place;
  /** Whether questions need not wait: it was loaded since the user opened it, or it is new. */
  isLoaded;
  #load;
  #loading = null;
  #last = Promise.resolve();
  #lostBranches = 0;

  /** `load()` loads the conversation; a new one, whose `id` is null, is not loaded. */
  constructor(id, load) {
    this.id = id;
    this.place = id ?? NEW_PLACE + crypto.getRandomValues(new Uint32Array(2)).join("-");
    this.isLoaded = id === null;
    this.#load = load;
  }

  /** Load the conversation, also if it has been loaded before; reject if that fails. */
  load() {
    const loading = this.#load();
    this.#loading = loading;
    loading.catch(() => {
      if (this.#loading === loading) this.#loading = null; // the next question tries again
    });
    return loading;
  }

  /**
   * Run `send(conversation)` in turn; `isBranch` if the question begins a branch. Resolve when it
   * has run; reject if it or the load fails, or with "unsent" if the branch shown was not begun.
   */
  add(send, isBranch) {
    const loading = this.isLoaded ? null : (this.#loading ?? this.load());
    const lostBranches = this.#lostBranches;
    const sending = this.#last.then(() => loading).then(() => {
      if (lostBranches !== this.#lostBranches) throw new ApiError(0, "unsent");
      return send(this.id ?? NEW_CONVERSATION);
    });
    this.#last = sending.catch(() => {
      if (isBranch) this.#lostBranches++;
    });
    return sending;
  }
}

/** Return whether a place is that of a new conversation, of this page or another one. */
export function isNewPlace(place) {
  return place.startsWith(NEW_PLACE);
}
