/**
 * Change nodes of an answer into newly rendered ones, and keep those that stay. A click, a
 * selection, the focus and an inner scroll position then survive. morphdom makes both equal,
 * whatever an extension or a translator did to the old nodes.
 */

import morphdom from "../../vendor/morphdom.js";

const DIRECTED = "p, h1, h2, h3, h4, h5, h6, li:not(:has(> p)), th, td"; // blocks that have a text
const OPTIONS = {
  getNodeKey: () => null, // an id in an answer is an extension's, and says nothing of the text
  onBeforeElUpdated(old, fresh) {
    if (old.isEqualNode(fresh) || isSameCode(old, fresh)) return false;
    extendTexts(old, fresh);
    return true;
  },
};

/**
 * Make `nodes` the content of `parent` after its child `kept`, or its whole content if null. Return
 * the nodes that are shown, which are old ones where possible.
 */
export function patchAfter(kept, parent, nodes) {
  const old = [];
  let node = kept ? kept.nextSibling : parent.firstChild;
  for (; node; node = node.nextSibling) old.push(node);
  for (const extra of old.slice(nodes.length)) extra.remove();
  return nodes.map((fresh, at) => {
    setDirections(fresh);
    if (old[at]?.nodeName === fresh.nodeName) return morphdom(old[at], fresh, OPTIONS);
    if (at < old.length) old[at].replaceWith(fresh);
    else parent.append(fresh);
    return fresh;
  });
}

// A block without a letter has the direction of the text around it.
function setDirections(node) {
  if (node.nodeType !== Node.ELEMENT_NODE) return;
  for (const block of [node, ...node.querySelectorAll(DIRECTED)]) {
    if (block.matches(DIRECTED) && /\p{L}/u.test(block.textContent)) block.dir = "auto";
  }
}

// Streaming code is in chunks, and a clicked button has another label for a moment.
function isSameCode(old, fresh) {
  if (old.matches(".copy-code")) return true;
  return old.matches("pre > code") && old.textContent.trimEnd() === fresh.textContent.trimEnd();
}

// A text that morphdom replaces loses the selection in it.
function extendTexts(old, fresh) {
  for (const [at, node] of old.childNodes.entries()) {
    const text = fresh.childNodes[at]?.nodeType === Node.TEXT_NODE && fresh.childNodes[at].data;
    if (node.nodeType === Node.TEXT_NODE && text) replaceEnd(node, text);
  }
}

function replaceEnd(node, text) {
  let same = 0;
  while (same < text.length && text[same] === node.data[same]) same += 1;
  node.replaceData(same, node.length - same, text.slice(same));
}
