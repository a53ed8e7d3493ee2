/** Scrolls a box sideways until something in it is in sight; the page itself stays where it is. */
export function showIn(box: HTMLElement, inside: HTMLElement): void {
  const [outer, inner] = [box.getBoundingClientRect(), inside.getBoundingClientRect()];
  if (inner.left < outer.left) box.scrollLeft -= outer.left - inner.left;
  else if (inner.right > outer.right) box.scrollLeft += Math.min(inner.right - outer.right, inner.left - outer.left);
}
