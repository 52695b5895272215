/** Mark the blocks in which an answer was continued; the mark's tooltip gives the reason. */

import { strings } from "../strings/strings.js";
import { lex } from "./render.js";

const INVISIBLE = new Set(["space", "def"]); // types of tokens

/**
 * Mark the blocks of the rendered `text` in `body` that contain seams; a seam between blocks
 * belongs to the next one. A seam's `at` counts code points. May throw OutOfTime.
 */
export function markSeams(body, text, seams) {
  const blocks = body.querySelectorAll(":scope > :not(.list-chunk)");
  for (const [at, found] of groupByBlock(seams, text)) if (blocks[at]) mark(blocks[at], found);
}

// Returns the seams of each block, by the number of the block. marked's tokens count UTF-16 units,
// and each line end as \n.
function groupByBlock(seams, text) {
  const points = [...text];
  const tokens = lex(text);
  const visible = tokens.filter(({ type }) => !INVISIBLE.has(type));
  const blocks = new Map();
  for (const seam of seams) {
    let left = points.slice(0, seam.at).join("").replaceAll("\r\n", "\n").length;
    const within = tokens.findIndex(({ raw }) => (left -= raw.length) < 0);
    const rest = within < 0 ? [] : tokens.slice(within);
    const next = visible.indexOf(rest.find(({ type }) => !INVISIBLE.has(type)));
    const shown = next < 0 ? visible.length - 1 : next;
    blocks.set(shown, [...(blocks.get(shown) ?? []), seam]);
  }
  return blocks;
}

function mark(block, seams) {
  const frame = document.createElement("div");
  frame.className = "seam";
  const line = document.createElement("span");
  line.className = "continuation-mark";
  line.setAttribute("role", "img");
  line.title = seams.map(strings.seam).join("\n");
  line.setAttribute("aria-label", line.title);
  block.replaceWith(frame);
  frame.append(line, block);
}
