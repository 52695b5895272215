/** Split long lists and tables into chunks, of which the browser lays out only the last again. */

/** Move the last item of a long list into a new list after it, and return that list. */
export function startListChunk(list) {
  const chunk = list.cloneNode(false);
  chunk.classList.add("list-chunk");
  if (chunk.matches("ol")) chunk.start = findLastNumber(list);
  chunk.append(list.lastElementChild);
  list.after(chunk);
  return chunk;
}

function findLastNumber(list) {
  const items = [...list.children];
  const at = items.findLastIndex((item) => item.hasAttribute("value"));
  return at < 0 ? list.start + items.length - 1 : items[at].value + items.length - 1 - at;
}

/**
 * Move the last row of a long table into a new `<tbody>` after its own, and return that. From then
 * on the browser no longer aligns the columns of all rows, so they get the widths they have now.
 */
export function startTableChunk(body) {
  const table = body.closest("table");
  if (!table.classList.contains("chunked")) fixColumns(table);
  const chunk = document.createElement("tbody");
  chunk.append(body.lastElementChild);
  body.after(chunk);
  return chunk;
}

// In a hidden table every width is 0: then the columns share the space evenly.
function fixColumns(table) {
  const widths = [...table.tHead.rows[0].cells].map((cell) => cell.getBoundingClientRect().width);
  const columns = widths.map((px) => `minmax(0, ${px || 1}fr)`).join(" ");
  table.style.inlineSize = `${table.getBoundingClientRect().width}px`;
  table.style.setProperty("--columns", columns);
  table.classList.add("chunked");
}
