/** List the conversations, newest first; the user can load more, rename and delete them. */

import {
  deleteConversation, deleteConversations, listConversations, renameConversation, signOut,
} from "../net/api.js";
import { strings } from "../strings/strings.js";

const RETRY_DELAY_MS = 5000;
const DEBOUNCE_MS = 100; // one change causes several calls

export class ConversationList {
  #element;
  #more;
  #delegate;
  #items = new Map(); // <li> by the conversation's id
  #current = null;
  #next = null;
  #retryTimer = 0;
  #soonTimer = 0;

  /**
   * Calls delegate.onTitle(id, title), onDelete(id) before a deletion, onDeleted(id) after it,
   * onSignedOut() and onChangeFailed(error).
   */
  constructor(element, more, leave, delegate) {
    this.#element = element;
    this.#more = more;
    this.#delegate = delegate;
    more.addEventListener("click", () => this.#loadMore());
    leave.addEventListener("click", () => this.#signOut());
  }

  /** Load the newest conversations; older ones that were loaded before stay. */
  async refresh() {
    clearTimeout(this.#retryTimer);
    const page = await listConversations().catch(() => null);
    if (!page) return this.#retryLater();
    if (this.#items.size === 0 || !page.next) this.#setNext(page.next);
    if (!page.next) this.#removeAllBut(page.conversations);
    this.#moveToTop(page.conversations.map((conversation) => this.#show(conversation)));
  }

  /** Load them soon, once for several calls. */
  refreshSoon() {
    this.#soonTimer ||= setTimeout(() => {
      this.#soonTimer = 0;
      this.refresh();
    }, DEBOUNCE_MS);
  }

  /** Remove a conversation that was deleted. */
  remove(id) {
    this.#items.get(id)?.remove();
    this.#items.delete(id);
  }

  /** Mark the open conversation, or none. */
  setCurrent(id) {
    this.#current = id;
    for (const [itemId, item] of this.#items) mark(item, itemId === id);
  }

  async #loadMore() {
    const page = await listConversations(this.#next).catch(() => null);
    if (!page) return;
    this.#element.append(...page.conversations.map((conversation) => this.#show(conversation)));
    this.#setNext(page.next);
  }

  #setNext(next) {
    this.#next = next;
    this.#more.hidden = !next;
  }

  #removeAllBut(conversations) {
    const ids = new Set(conversations.map(({ id }) => id));
    for (const id of [...this.#items.keys()].filter((id) => !ids.has(id))) this.remove(id);
  }

  // Items that are in the right place are not moved: a moved node loses the focus.
  #moveToTop(items) {
    let next = this.#element.firstElementChild;
    for (const item of items) {
      if (item === next) next = next.nextElementSibling;
      else this.#element.insertBefore(item, next);
    }
  }

  // A hidden page refreshes when it becomes visible.
  #retryLater() {
    clearTimeout(this.#retryTimer);
    if (!document.hidden) this.#retryTimer = setTimeout(() => this.refresh(), RETRY_DELAY_MS);
  }

  #show(conversation) {
    const { id, title, running } = conversation;
    const item = this.#items.get(id) ?? this.#create(id);
    this.#setTitle(item, id, title);
    item.querySelector(".running-dot").hidden = !running;
    mark(item, id === this.#current);
    return item;
  }

  #create(id) {
    const template = document.querySelector("#conversation-item");
    const item = template.content.firstElementChild.cloneNode(true);
    item.querySelector("a").href = `#${id}`;
    item.querySelector(".rename").addEventListener("click", () => this.#rename(id));
    item.querySelector(".delete").addEventListener("click", () => this.#delete(id));
    this.#items.set(id, item);
    return item;
  }

  #setTitle(item, id, title) {
    item.querySelector(".conversation-title").textContent = title || strings.untitled;
    this.#delegate.onTitle(id, title);
  }

  #titleOf(id) {
    return this.#items.get(id).querySelector(".conversation-title").textContent;
  }

  async #rename(id) {
    const dialog = document.querySelector("#rename-dialog");
    const field = dialog.querySelector("input");
    field.value = this.#titleOf(id);
    const confirmation = confirmIn(dialog);
    field.select();
    const isConfirmed = await confirmation;
    const title = field.value.trim();
    if (!isConfirmed || !title) return;
    const show = () => this.#setTitle(this.#items.get(id), id, title);
    await this.#change(renameConversation(id, title), show);
  }

  async #delete(id) {
    const dialog = document.querySelector("#delete-dialog");
    dialog.querySelector("p").textContent = strings.deleteText(this.#titleOf(id));
    if (!(await confirmIn(dialog))) return;
    this.#delegate.onDelete(id);
    const show = () => (this.remove(id), this.#delegate.onDeleted(id));
    await this.#change(deleteConversation(id), show);
  }

  // The session ends only after all of its conversations have been deleted.
  async #signOut() {
    if (!(await confirmIn(document.querySelector("#sign-out-dialog")))) return;
    const leaving = deleteConversations().then(signOut);
    await this.#change(leaving, () => this.#delegate.onSignedOut());
  }

  async #change(request, show) {
    try {
      await request;
      show();
    } catch (error) {
      this.#delegate.onChangeFailed(error);
      this.refresh();
    }
  }
}

function mark(item, isCurrent) {
  const link = item.querySelector("a");
  if (isCurrent) link.setAttribute("aria-current", "page");
  else link.removeAttribute("aria-current");
}

// Open a modal dialog; resolve to whether the user confirmed it.
function confirmIn(dialog) {
  dialog.returnValue = "";
  // Cancel is not a submit button: Enter in a field would press the first one.
  dialog.querySelector(".plain-button").onclick = () => dialog.close();
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "ok"), { once: true });
  });
}
