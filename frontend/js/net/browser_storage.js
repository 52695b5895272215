/**
 * Keep values in the browser's storage. Browsers may refuse it, for example together with cookies,
 * and it may be full: then this page alone keeps the values, until it is closed.
 */

/** A value that stays in this browser, or in this tab, by its kind of storage. */
class BrowserStorage {
  #kind;
  #memory = new Map(); // the values that the browser has refused

  constructor(kind) {
    this.#kind = kind;
  }

  /** Return the value of a name, or null. */
  read(name) {
    return this.#memory.get(name) ?? this.#attempt((storage) => storage.getItem(name)) ?? null;
  }

  /** Keep a value; return whether it stays when the page is closed. */
  write(name, value) {
    this.#memory.delete(name);
    const isKept = this.#attempt((storage) => (storage.setItem(name, value), true));
    if (!isKept) this.#memory.set(name, value);
    return Boolean(isKept);
  }

  /** Remove a name and its value. */
  remove(name) {
    this.#memory.delete(name);
    this.#attempt((storage) => storage.removeItem(name));
  }

  /** Return the names that begin with `prefix`. */
  names(prefix) {
    const stored = this.#attempt((storage) => Object.keys(storage)) ?? [];
    const names = new Set([...stored, ...this.#memory.keys()]);
    return [...names].filter((name) => name.startsWith(prefix));
  }

  // Even the property `localStorage` may throw.
  #attempt(step) {
    try {
      return step(window[this.#kind]);
    } catch (error) {
      if (error instanceof DOMException || error instanceof TypeError) return undefined;
      throw error;
    }
  }
}

/** Return whether the browser accepts this site's cookies: without one there is no session. */
export function acceptsCookies() {
  document.cookie = "holdline-test=1; SameSite=Lax";
  const isAccepted = document.cookie.includes("holdline-test=1");
  document.cookie = "holdline-test=; Max-Age=0; SameSite=Lax";
  return isAccepted;
}

/** Values that all tabs of this browser share. */
export const sharedStorage = new BrowserStorage("localStorage");

/** Values of this tab, which survive a reload. */
export const tabStorage = new BrowserStorage("sessionStorage");
