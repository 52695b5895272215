/**
 * Send the questions of one conversation in the order in which they were typed. Each waits until
 * the conversation is loaded, and until the turn of the question before it has begun or failed. The
 * first question of a new conversation begins it, and the others follow there.
 */

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

  /** Run `send(conversation)` in turn. Resolve when it has, and reject if it or the load fails. */
  add(send) {
    const loading = this.isLoaded ? null : (this.#loading ?? this.load());
    const sending = this.#last.then(() => loading).then(() => send(this.id ?? NEW_CONVERSATION));
    this.#last = sending.catch(() => {});
    return sending;
  }
}

/** Return whether a place is that of a new conversation, of this page or another one. */
export function isNewPlace(place) {
  return place.startsWith(NEW_PLACE);
}
