/** Put text into elements: words with `code` between backticks, and tables. */

/** Replace the content of an element by words. */
export function fillText(element, words) {
  element.replaceChildren(...splitCode(words));
  element.hidden = words === "";
}

/** Fill a table; a cell is a list of nodes and texts, or words. No rows: the table stays empty. */
export function fillTable(table, titles, rows) {
  if (rows.length === 0) return;
  const head = table.createTHead().insertRow();
  for (const title of titles) {
    const cell = document.createElement("th");
    cell.textContent = title;
    head.append(cell);
  }
  const body = table.createTBody();
  for (const cells of rows) {
    const row = body.insertRow();
    for (const cell of cells) {
      row.insertCell().append(...(typeof cell === "string" ? splitCode(cell) : cell));
    }
  }
}

function splitCode(words) {
  return words.split("`").map((text, index) => {
    if (index % 2 === 0) return text;
    const element = document.createElement("code");
    element.textContent = text;
    return element;
  });
}
