/** Functions that the composer and the question editor share for their text fields. */

/** Return whether a key event belongs to an input method. Safari reports only keyCode 229. */
export function isComposing(event) {
  return event.isComposing || event.keyCode === 229;
}

/** Return the question in a field, which may begin with spaces: they can be its markup. */
export function readQuestion(field) {
  return field.value.replace(/^\s*\n/, "").trimEnd();
}

/** Count a text's characters as the server does; `length` would count UTF-16 units. */
export function lengthOf(text) {
  return [...text].length;
}

/** Make a field as tall as its text, up to `maxHeight` in px. */
export function fitHeight(field, maxHeight = Infinity) {
  const form = field.parentElement;
  form.style.height = `${form.offsetHeight}px`; // the page does not move meanwhile
  field.style.height = "auto";
  field.style.height = `${Math.min(field.scrollHeight, maxHeight)}px`;
  form.style.height = "";
}
