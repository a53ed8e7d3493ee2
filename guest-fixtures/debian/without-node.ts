// A flattened device tree without some of its nodes (Devicetree Specification v0.4, §5.4): the structure block is copied token by token. The strings block stays as
// it is.

const HEADER_BYTES = 40;
const BEGIN_NODE = 1;
const END_NODE = 2;
const PROPERTY = 3;
const NOP = 4;
const END = 9;

/** `tree` without the nodes of this name and what is below them. Throws RangeError for what is no tree. */
export function withoutNode(tree: Uint8Array, name: string): Uint8Array {
  const view = new DataView(tree.buffer, tree.byteOffset, tree.length);
  const structureAt = view.getUint32(8);
  const stringsAt = view.getUint32(12);
  const stringsBytes = view.getUint32(32);
  const kept: Uint8Array[] = [];
  let depth = 0;
  // depth of the node that is being left out, 0: none is
  let out = 0;
  let at = structureAt;
  for (let token = 0; token !== END; ) {
    const from = at;
    token = view.getUint32(at);
    at += 4;
    let wanted = out === 0;
    if (token === BEGIN_NODE) {
      depth++;
      const end = tree.indexOf(0, at);
      if (wanted && Buffer.from(tree.subarray(at, end)).toString("latin1") === name) {
        out = depth;
        wanted = false;
      }
      at = (end + 4) & ~3;
    } else if (token === END_NODE) {
      if (out === depth) out = 0;
      depth--;
    } else if (token === PROPERTY) at = (at + 8 + view.getUint32(at) + 3) & ~3;
    else if (token !== END && token !== NOP) throw new RangeError(`token ${token} at ${from}`);
    if (wanted) kept.push(tree.subarray(from, at));
  }
  const structure = Buffer.concat(kept);
  const head = Buffer.from(tree.subarray(0, structureAt));
  const strings = tree.subarray(stringsAt, stringsAt + stringsBytes);
  head.writeUInt32BE(structureAt + structure.length + strings.length, 4);
  head.writeUInt32BE(structureAt + structure.length, 12);
  head.writeUInt32BE(structure.length, 36);
  if (structureAt < HEADER_BYTES || stringsAt < structureAt)
    throw new RangeError("blocks are not in their usual order");
  return Buffer.concat([head, structure, strings]);
}
