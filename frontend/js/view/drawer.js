/** Open and close the list of conversations on a narrow screen, where it covers the page. */

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

  /** Close the drawer, if it is open. */
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
