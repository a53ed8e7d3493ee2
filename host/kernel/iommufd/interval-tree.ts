// Disjoint intervals of a 64-bit address space, ordered, in a height-balanced tree (AVL) that also knows the largest hole inside
// every subtree. Looking up, inserting, removing, and finding the lowest hole that is large enough all take O(log n) steps: an
// IOAS may hold 100,000 areas.

/** Inclusive bounds; they must not change while the interval is in a tree. */
export interface Interval {
  readonly start: bigint;
  readonly last: bigint;
}

interface Node<T extends Interval> {
  item: T;
  left: Node<T> | null;
  right: Node<T> | null;
  height: number;
  /** Lowest start, highest last, and largest hole between two items, of the subtree. */
  first: bigint;
  end: bigint;
  hole: bigint;
}

// Not state: whoever has a tree writes its items down.
export class IntervalTree<T extends Interval> {
  #root: Node<T> | null = null;
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** The item with the lowest address that touches [start, last], or null. */
  firstIn(start: bigint, last: bigint): T | null {
    let node = this.#root;
    let best: T | null = null;
    while (node !== null) {
      if (node.item.last >= start) {
        best = node.item;
        node = node.left;
      } else {
        node = node.right;
      }
    }
    return best !== null && best.start <= last ? best : null;
  }

  /** The item that contains the address, or null. */
  at(address: bigint): T | null {
    return this.firstIn(address, address);
  }

  /** Inserts an interval that touches none in the tree (the caller has looked). */
  insert(item: T): void {
    this.#root = insert(this.#root, item);
    this.#size++;
  }

  /** Removes exactly this item; false if it is not there. */
  remove(item: T): boolean {
    if (this.at(item.start) !== item) return false;
    this.#root = remove(this.#root, item.start);
    this.#size--;
    return true;
  }

  clear(): void {
    this.#root = null;
    this.#size = 0;
  }

  /** In ascending order. The tree may be changed below the item just visited, not above it. */
  *[Symbol.iterator](): IterableIterator<T> {
    const path: Node<T>[] = [];
    let node = this.#root;
    while (node !== null || path.length > 0) {
      while (node !== null) {
        path.push(node);
        node = node.left;
      }
      node = path.pop()!;
      yield node.item;
      node = node.right;
    }
  }

  /**
   * Walks the holes of at least `length` bytes within [start, last] from the lowest up, until `accept` returns an address, and
   * returns that; null if none did. Subtrees without a hole of that size are not entered.
   */
  findHole(
    start: bigint,
    last: bigint,
    length: bigint,
    accept: (start: bigint, last: bigint) => bigint | null,
  ): bigint | null {
    return findHole(this.#root, start, last, length, accept);
  }
}

function findHole<T extends Interval>(
  node: Node<T> | null,
  start: bigint,
  last: bigint,
  length: bigint,
  accept: (start: bigint, last: bigint) => bigint | null,
): bigint | null {
  if (start > last || last - start < length - 1n) return null;
  if (node === null || node.first > last || node.end < start) return accept(start, last);
  if (
    node.hole < length &&
    (node.first <= start || node.first - start < length) &&
    (node.end >= last || last - node.end < length)
  ) {
    return null;
  }
  const { item } = node;
  const below = item.start === 0n ? null : findHole(node.left, start, min(last, item.start - 1n), length, accept);
  return below ?? findHole(node.right, max(start, item.last + 1n), last, length, accept);
}

// Math.min and Math.max take no bigints.
function min(a: bigint, b: bigint): bigint {
  if (a < b) return a;
  return b;
}

function max(a: bigint, b: bigint): bigint {
  if (a > b) return a;
  return b;
}

function heightOf<T extends Interval>(node: Node<T> | null): number {
  return node === null ? 0 : node.height;
}

/** Recomputes what a node knows of its subtree. */
function update<T extends Interval>(node: Node<T>): Node<T> {
  const { left, right, item } = node;
  node.height = 1 + Math.max(heightOf(left), heightOf(right));
  node.first = left === null ? item.start : left.first;
  node.end = right === null ? item.last : right.end;
  let hole = 0n;
  if (left !== null) hole = max(left.hole, item.start - left.end - 1n);
  if (right !== null) hole = max(hole, max(right.hole, right.first - item.last - 1n));
  node.hole = hole;
  return node;
}

function rotateRight<T extends Interval>(node: Node<T>): Node<T> {
  const top = node.left!;
  node.left = top.right;
  top.right = update(node);
  return update(top);
}

function rotateLeft<T extends Interval>(node: Node<T>): Node<T> {
  const top = node.right!;
  node.right = top.left;
  top.left = update(node);
  return update(top);
}

function balance<T extends Interval>(node: Node<T>): Node<T> {
  const lean = heightOf(node.left) - heightOf(node.right);
  if (lean > 1) {
    const left = node.left!;
    if (heightOf(left.left) < heightOf(left.right)) node.left = rotateLeft(left);
    return rotateRight(node);
  }
  if (lean < -1) {
    const right = node.right!;
    if (heightOf(right.right) < heightOf(right.left)) node.right = rotateRight(right);
    return rotateLeft(node);
  }
  return update(node);
}

function insert<T extends Interval>(node: Node<T> | null, item: T): Node<T> {
  if (node === null) {
    return { item, left: null, right: null, height: 1, first: item.start, end: item.last, hole: 0n };
  }
  if (item.start < node.item.start) node.left = insert(node.left, item);
  else node.right = insert(node.right, item);
  return balance(node);
}

function remove<T extends Interval>(node: Node<T> | null, start: bigint): Node<T> | null {
  if (node === null) return null;
  if (start < node.item.start) {
    node.left = remove(node.left, start);
  } else if (start > node.item.start) {
    node.right = remove(node.right, start);
  } else {
    if (node.left === null) return node.right;
    if (node.right === null) return node.left;
    let next = node.right;
    while (next.left !== null) next = next.left;
    node.item = next.item;
    node.right = remove(node.right, next.item.start);
  }
  return balance(node);
}
