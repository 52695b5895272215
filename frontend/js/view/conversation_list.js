/** The list of conversations: the newest first, more on demand, each to be renamed or deleted. */

import { deleteConversation, listConversations, renameConversation } from "../net/api.js";
import { strings } from "../strings/strings.js";

const POLL_MS = 5000;

export class ConversationList {
  #element;
  #more;
  #delegate;
  #items = new Map(); // li by the conversation's id, which holds what is shown of it
  #current = null;
  #next = null;
  #timer = 0;

  /** The delegate hears `titleSeen(id, title)`, `conversationDeleted(id)` and `changeFailed(error)`. */
  constructor(element, more, delegate) {
    this.#element = element;
    this.#more = more;
    this.#delegate = delegate;
    more.addEventListener("click", () => this.#loadMore());
  }

  /** Fetches the newest conversations; what was loaded of older ones stays. */
  async refresh() {
    clearTimeout(this.#timer);
    const page = await listConversations().catch(() => null);
    if (!page) return this.#refreshLater(); // the list as it was is better than none
    if (this.#items.size === 0 || !page.next) this.#setNext(page.next);
    if (!page.next) this.#removeAllBut(page.conversations);
    this.#putFirst(page.conversations.map((conversation) => this.#show(conversation)));
    this.#pollWhileRunning(page.conversations);
  }

  /** Marks the conversation that is open, or none. */
  setCurrent(id) {
    this.#current = id;
    for (const [itsId, item] of this.#items) mark(item, itsId === id);
  }

  // Only what stands elsewhere is moved: a moved node loses the focus.
  #putFirst(items) {
    let place = this.#element.firstElementChild;
    for (const item of items) {
      if (item === place) place = place.nextElementSibling;
      else this.#element.insertBefore(item, place);
    }
  }

  async #loadMore() {
    const page = await listConversations(this.#next).catch(() => null);
    if (!page) return;
    page.conversations.forEach((conversation) => this.#element.append(this.#show(conversation)));
    this.#setNext(page.next);
  }

  #setNext(next) {
    this.#next = next;
    this.#more.hidden = !next;
  }

  // The open conversation's answer tells its own end; those of the others have to be asked for.
  #pollWhileRunning(conversations) {
    const others = conversations.some(({ id, running }) => running && id !== this.#current);
    if (others) this.#refreshLater();
  }

  // A hidden page asks when it is seen again.
  #refreshLater() {
    clearTimeout(this.#timer);
    if (!document.hidden) this.#timer = setTimeout(() => this.refresh(), POLL_MS);
  }

  #removeAllBut(conversations) {
    const kept = new Set(conversations.map(({ id }) => id));
    for (const id of [...this.#items.keys()].filter((id) => !kept.has(id))) this.#remove(id);
  }

  #remove(id) {
    this.#items.get(id)?.remove();
    this.#items.delete(id);
  }

  #show(conversation) {
    const { id, title, running } = conversation;
    const item = this.#items.get(id) ?? this.#make(id);
    this.#setTitle(item, id, title);
    item.querySelector(".running-dot").hidden = !running;
    mark(item, id === this.#current);
    return item;
  }

  #make(id) {
    const item = document.querySelector("#conversation-item").content.firstElementChild.cloneNode(true);
    item.querySelector("a").href = `#${id}`;
    item.querySelector(".rename").addEventListener("click", () => this.#rename(id));
    item.querySelector(".delete").addEventListener("click", () => this.#delete(id));
    this.#items.set(id, item);
    return item;
  }

  #setTitle(item, id, title) {
    item.querySelector(".conversation-title").textContent = title || strings.untitled;
    this.#delegate.titleSeen(id, title);
  }

  #titleOf(id) {
    return this.#items.get(id).querySelector(".conversation-title").textContent;
  }

  async #rename(id) {
    const dialog = document.querySelector("#rename-dialog");
    const field = dialog.querySelector("input");
    field.value = this.#titleOf(id);
    const answer = askIn(dialog);
    field.select();
    const agreed = await answer;
    const title = field.value.trim();
    if (!agreed || !title) return;
    await this.#try(renameConversation(id, title), () => this.#setTitle(this.#items.get(id), id, title));
  }

  async #delete(id) {
    const dialog = document.querySelector("#delete-dialog");
    dialog.querySelector("p").textContent = strings.deleteText(this.#titleOf(id));
    if (!(await askIn(dialog))) return;
    await this.#try(deleteConversation(id), () => {
      this.#remove(id);
      this.#delegate.conversationDeleted(id);
    });
  }

  async #try(request, done) {
    try {
      await request;
      done();
    } catch (error) {
      this.#delegate.changeFailed(error);
      this.refresh();
    }
  }
}

function mark(item, current) {
  const link = item.querySelector("a");
  if (current) link.setAttribute("aria-current", "page");
  else link.removeAttribute("aria-current");
}

// Cancel is no submit button: Enter in the field would press the first of those.
function askIn(dialog) {
  dialog.returnValue = "";
  dialog.querySelector(".plain-button").onclick = () => dialog.close();
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "ok"), { once: true });
  });
}
