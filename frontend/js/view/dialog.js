/** Ask the user in a modal dialog. */

/** Open a dialog; resolve to whether the user confirmed it. */
export function confirmIn(dialog) {
  dialog.returnValue = "";
  // Cancel is not a submit button: Enter in a field would press the first one.
  dialog.querySelector(".plain-button").onclick = () => dialog.close();
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "ok"), { once: true });
  });
}
