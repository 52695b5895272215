/**
 * Return the name of something that the tabs of one Holdline share: a lock, a channel, a stored
 * value. Another Holdline may run on the same origin, below another path.
 */
export function sharedName(name) {
  return `holdline.${name} ${new URL(".", document.baseURI).pathname}`;
}
