/** The mark at the place where an answer broke off and went on: quiet, and says why to who asks it. */

import { strings } from "../strings/strings.js";

/** A block in which seams lie, with its mark. */
export function withSeam(block, seams) {
  const framed = document.createElement("div");
  framed.className = "seam";
  const sign = document.createElement("span");
  sign.className = "continuation-mark";
  sign.setAttribute("role", "img");
  sign.title = seams.map(strings.seam).join("\n");
  sign.setAttribute("aria-label", sign.title);
  framed.append(sign, block);
  return framed;
}
