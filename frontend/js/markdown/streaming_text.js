/** Show preformatted text while it streams, in time linear in its length. */

const CHUNK_SIZE = 4000; // characters

/** Lines of text in separate blocks, so that the browser lays out only the last block again. */
export class StreamingText {
  #element;
  #text = "";
  #chunkStart = 0; // of the last block, in characters
  #node = null; // its text

  /** The first text replaces the content of `element`. */
  constructor(element) {
    this.#element = element;
  }

  /** The element that shows the text. */
  get element() {
    return this.#element;
  }

  /** Show the text so far. A text that does not extend the last one starts again. */
  write(text) {
    if (!text.startsWith(this.#text) || !this.#isIntact()) this.#restart();
    const lineStart = text.lastIndexOf("\n") + 1;
    if (lineStart - this.#chunkStart > CHUNK_SIZE) {
      this.#extend(text.slice(0, lineStart));
      this.#chunkStart = lineStart;
      this.#addChunk();
    }
    this.#extend(text);
  }

  // An extension may have replaced, split or changed the text.
  #isIntact() {
    const chunk = this.#element.lastChild;
    const isOwn = this.#node && this.#node.parentNode === chunk && chunk.childNodes.length === 1;
    return isOwn && this.#node.data === this.#text.slice(this.#chunkStart);
  }

  #restart() {
    this.#text = "";
    this.#chunkStart = 0;
    this.#element.replaceChildren();
    this.#addChunk();
  }

  // A text that is replaced loses the selection in it.
  #extend(text) {
    this.#node.appendData(text.slice(this.#text.length));
    this.#text = text;
  }

  #addChunk() {
    const chunk = document.createElement("span");
    chunk.className = "text-chunk";
    this.#node = document.createTextNode("");
    chunk.append(this.#node);
    this.#element.append(chunk);
  }
}
