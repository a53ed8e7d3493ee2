// Encodes a device tree as the flattened blob a kernel takes (Devicetree Specification v0.4, chapter 5). A tree is plain data; phandles
// are allotted while encoding: a property value may hold references to nodes by label.
//
// No npm package writes this format well, and writing it takes a page: hence our own.

export interface Reference {
  readonly ref: string;
}

/** A cell (u32), a 64-bit number as two cells, or the phandle of a labelled node. */
export type Cell = number | bigint | Reference;
export type PropertyValue = readonly Cell[] | string | readonly string[] | Uint8Array | true;

export interface TreeNode {
  /** "soc", "memory@80000000"; "" for the root. */
  readonly name: string;
  readonly label?: string;
  readonly properties?: Readonly<Record<string, PropertyValue>>;
  readonly children?: readonly TreeNode[];
}

export const ref = (label: string): Reference => ({ ref: label });

const FDT_MAGIC = 0xd00dfeed;
const FDT_BEGIN_NODE = 1;
const FDT_END_NODE = 2;
const FDT_PROP = 3;
const FDT_END = 9;

/** Not state: made and dropped while a tree is written. */
class Bytes {
  #data = new Uint8Array(4096);
  length = 0;

  #grow(more: number): void {
    if (this.length + more <= this.#data.length) return;
    const bigger = new Uint8Array(Math.max(this.#data.length * 2, this.length + more));
    bigger.set(this.#data);
    this.#data = bigger;
  }

  u32(value: number): void {
    this.#grow(4);
    for (let shift = 24; shift >= 0; shift -= 8) this.#data[this.length++] = (value >>> shift) & 0xff;
  }

  raw(bytes: Uint8Array): void {
    this.#grow(bytes.length);
    this.#data.set(bytes, this.length);
    this.length += bytes.length;
  }

  align(to: number): void {
    while (this.length % to !== 0) this.raw(new Uint8Array(1));
  }

  bytes(): Uint8Array {
    return this.#data.slice(0, this.length);
  }
}

const text = new TextEncoder();

/** The blob, version 17. Throws RangeError for a reference to a label that no node has (a bug of the machine's). */
export function encodeDeviceTree(root: TreeNode, bootHart = 0): Uint8Array {
  const phandles = new Map<string, number>();
  const number = (node: TreeNode): void => {
    if (node.label !== undefined) phandles.set(node.label, phandles.size + 1);
    node.children?.forEach(number);
  };
  number(root);

  const strings = new Bytes();
  const offsets = new Map<string, number>();
  const stringOffset = (name: string): number => {
    let offset = offsets.get(name);
    if (offset === undefined) {
      offset = strings.length;
      offsets.set(name, offset);
      strings.raw(text.encode(`${name}\0`));
    }
    return offset;
  };

  const structure = new Bytes();
  const property = (name: string, value: Uint8Array): void => {
    structure.u32(FDT_PROP);
    structure.u32(value.length);
    structure.u32(stringOffset(name));
    structure.raw(value);
    structure.align(4);
  };
  const node = (it: TreeNode): void => {
    structure.u32(FDT_BEGIN_NODE);
    structure.raw(text.encode(`${it.name}\0`));
    structure.align(4);
    for (const [name, value] of Object.entries(it.properties ?? {})) property(name, encodeValue(value, phandles));
    if (it.label !== undefined) property("phandle", encodeValue([phandles.get(it.label)!], phandles));
    it.children?.forEach(node);
    structure.u32(FDT_END_NODE);
  };
  node(root);
  structure.u32(FDT_END);

  const structureAt = 40 + 16;
  const stringsAt = structureAt + structure.length;
  const blob = new Bytes();
  const total = (stringsAt + strings.length + 7) & ~7;
  for (const field of [
    FDT_MAGIC,
    total,
    structureAt,
    stringsAt,
    40,
    17,
    16,
    bootHart,
    strings.length,
    structure.length,
  ]) {
    blob.u32(field);
  }
  blob.raw(new Uint8Array(16)); // memory reservation block: only its terminator
  blob.raw(structure.bytes());
  blob.raw(strings.bytes());
  blob.align(8);
  return blob.bytes();
}

function encodeValue(value: PropertyValue, phandles: ReadonlyMap<string, number>): Uint8Array {
  if (value === true) return new Uint8Array(0);
  if (typeof value === "string") return text.encode(`${value}\0`);
  if (value instanceof Uint8Array) return value;
  const bytes = new Bytes();
  for (const item of value) {
    if (typeof item === "string") {
      bytes.raw(text.encode(`${item}\0`));
    } else if (typeof item === "number") {
      bytes.u32(item);
    } else if (typeof item === "bigint") {
      bytes.u32(Number(item >> 32n));
      bytes.u32(Number(item & 0xffffffffn));
    } else {
      const phandle = phandles.get(item.ref);
      if (phandle === undefined) throw new RangeError(`the device tree has no node labelled "${item.ref}"`);
      bytes.u32(phandle);
    }
  }
  return bytes.bytes();
}
