/** Open and close the list of conversations on a narrow screen, where it covers the page. */

const NARROW = "(max-width: 700px)"; // as in sidebar.css

export class Drawer {
  #panel;
  #opener;
  #page;

  /** While the drawer is open, nothing in `page` can be focused. */
  constructor(panel, opener, backdrop, page) {
    this.#panel = panel;
    this.#opener = opener;
    this.#page = page;
    opener.addEventListener("click", () => this.#open());
    backdrop.addEventListener("click", () => this.close());
    panel.querySelector("#close-list").addEventListener("click", () => this.close());
    panel.addEventListener("click", ({ target }) => target.closest("a") && this.close());
    document.addEventListener("keydown", (event) => this.#onKeydown(event));
    matchMedia(NARROW).addEventListener("change", () => this.close());
  }

  /** Close the drawer, if it is open, and give the focus back. */
  close() {
    if (!this.#isOpen) return;
    this.#toggle(false);
    this.#opener.focus();
  }

  get #isOpen() {
    return this.#panel.hasAttribute("data-open");
  }

  #open() {
    this.#toggle(true);
    this.#panel.querySelector("#close-list").focus();
  }

  #toggle(isOpen) {
    this.#panel.toggleAttribute("data-open", isOpen);
    this.#opener.setAttribute("aria-expanded", String(isOpen));
    this.#page.inert = isOpen;
  }

  // A dialog of the list closes itself.
  #onKeydown({ key, target }) {
    if (key === "Escape" && !target.closest("dialog")) this.close();
  }
}
