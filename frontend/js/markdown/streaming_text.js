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

  /** Show the text so far. A text that does not extend the last one starts again. */
  write(text) {
    if (!this.#node || !text.startsWith(this.#text)) {
      this.#chunkStart = 0;
      this.#element.replaceChildren();
      this.#addChunk();
    }
    this.#text = text;
    const lineStart = text.lastIndexOf("\n") + 1;
    if (lineStart - this.#chunkStart > CHUNK_SIZE) {
      this.#node.data = text.slice(this.#chunkStart, lineStart);
      this.#chunkStart = lineStart;
      this.#addChunk();
    }
    this.#node.data = text.slice(this.#chunkStart);
  }

  #addChunk() {
    const chunk = document.createElement("span");
    chunk.className = "text-chunk";
    this.#node = document.createTextNode("");
    chunk.append(this.#node);
    this.#element.append(chunk);
  }
}
