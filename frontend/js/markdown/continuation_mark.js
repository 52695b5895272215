/** Mark the block in which an answer was continued; the mark's tooltip gives the reason. */

import { strings } from "../strings/strings.js";

/** Return a block together with the mark of the seams in it. */
export function withContinuationMark(block, seams) {
  const frame = document.createElement("div");
  frame.className = "seam";
  const mark = document.createElement("span");
  mark.className = "continuation-mark";
  mark.setAttribute("role", "img");
  mark.title = seams.map(strings.seam).join("\n");
  mark.setAttribute("aria-label", mark.title);
  frame.append(mark, block);
  return frame;
}
