/** Preformatted text that is still being written, in time linear in its length. */

const PART = 4000; // characters

/** Whole lines go into blocks of their own, so that the browser lays out anew only the last. */
export class GrowingText {
  #element;
  #text = "";
  #begin = 0; // of the last block, in characters
  #last = null; // its text

  /** What stands in the element is replaced by the first text. */
  constructor(element) {
    this.#element = element;
  }

  /** Shows the text so far; a text that does not go on from the last one is begun anew. */
  write(text) {
    if (!this.#last || !text.startsWith(this.#text)) {
      this.#begin = 0;
      this.#element.replaceChildren();
      this.#add();
    }
    this.#text = text;
    const end = text.lastIndexOf("\n") + 1;
    if (end - this.#begin > PART) {
      this.#last.data = text.slice(this.#begin, end);
      this.#begin = end;
      this.#add();
    }
    this.#last.data = text.slice(this.#begin);
  }

  #add() {
    const block = document.createElement("span");
    block.className = "text-chunk";
    this.#last = document.createTextNode("");
    block.append(this.#last);
    this.#element.append(block);
  }
}
