/** The list of conversations on a narrow screen: over the page, opened by a button, closed by the rest. */

export class Drawer {
  #panel;
  #opener;

  constructor(panel, opener, backdrop) {
    this.#panel = panel;
    this.#opener = opener;
    opener.addEventListener("click", () => this.#open());
    backdrop.addEventListener("click", () => this.close());
    panel.querySelector("#close-list").addEventListener("click", () => this.close());
    panel.addEventListener("keydown", (event) => event.key === "Escape" && this.close());
  }

  /** Closes the drawer; nothing happens where it is no drawer, or not open. */
  close() {
    if (!this.#panel.hasAttribute("data-open")) return;
    this.#panel.removeAttribute("data-open");
    this.#opener.setAttribute("aria-expanded", "false");
    this.#opener.focus();
  }

  #open() {
    this.#panel.setAttribute("data-open", "");
    this.#opener.setAttribute("aria-expanded", "true");
    this.#panel.querySelector("#close-list").focus();
  }
}
