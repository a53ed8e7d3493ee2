// Which code is translated together: the blocks of one decode page that are connected, forwards or backwards, with a hot slot. A block is a run of
// decoded slots that is entered at its first instruction only; every block is an entry of the region.
import * as layout from "../assembly/layout.ts";
import * as opcodes from "../assembly/opcodes.ts";

export interface Instruction {
  /** Offset in the page, bytes. */
  readonly offset: number;
  /** Even opcode of opcodes.ts. */
  readonly operation: number;
  readonly length: 2 | 4;
  readonly a: number;
  readonly b: number;
  readonly immediate: number;
}

export interface Block {
  readonly instructions: readonly Instruction[];
}

/** More than this many instructions are not translated together. */
const LIMIT = 400;

const BRANCHES = new Set([opcodes.BEQ, opcodes.BNE, opcodes.BLT, opcodes.BGE, opcodes.BLTU, opcodes.BGEU]);
const FAR_BRANCHES = new Set([
  opcodes.BEQ_FAR,
  opcodes.BNE_FAR,
  opcodes.BLT_FAR,
  opcodes.BGE_FAR,
  opcodes.BLTU_FAR,
  opcodes.BGEU_FAR,
]);
const JUMPS = new Set([opcodes.J, opcodes.J_FAR, opcodes.JAL, opcodes.JAL_FAR, opcodes.JR, opcodes.JALR]);

/** True if the instruction ends a block. */
export function endsBlock(operation: number): boolean {
  return BRANCHES.has(operation) || FAR_BRANCHES.has(operation) || JUMPS.has(operation);
}

/** In-page target of a jump or branch, in bytes; −1 if it has none. */
export function targetOf(it: Instruction): number {
  if (BRANCHES.has(it.operation) || it.operation === opcodes.J || it.operation === opcodes.JAL) {
    return it.offset + it.immediate / 4;
  }
  return -1;
}

/** The instruction in a slot, a translated one's original included; null if it is undecoded or for the interpreter only. */
export function readSlot(
  view: DataView,
  page: number,
  offset: number,
  known: (operation: number) => boolean,
): Instruction | null {
  let at = page + offset * 4;
  if (view.getUint16(at, true) === opcodes.TRANSLATED)
    at = layout.ENTRIES + view.getUint32(at + 4, true) * layout.ENTRY_BYTES;
  const operation = view.getUint16(at, true);
  if (!known(operation & ~1)) return null;
  return {
    offset,
    operation: operation & ~1,
    length: (operation & 1) === 1 ? 2 : 4,
    a: view.getUint8(at + 2) / 8,
    b: view.getUint8(at + 3) / 8,
    immediate: view.getInt32(at + 4, true),
  };
}

/** The blocks around `offset` of the decode page at `page`, in order of address. */
export function findRegion(
  view: DataView,
  page: number,
  offset: number,
  known: (operation: number) => boolean,
): Block[] {
  // all that is decoded, and who leads to whom
  const decoded = new Map<number, Instruction>();
  const before = new Map<number, number[]>();
  const link = (from: number, to: number): void => {
    const list = before.get(to);
    if (list === undefined) before.set(to, [from]);
    else list.push(from);
  };
  for (let at = 0; at < 4096; at += 2) {
    const it = readSlot(view, page, at, known);
    if (it === null) continue;
    decoded.set(at, it);
    for (const next of successors(it)) link(at, next);
  }

  const chosen = new Set<number>();
  const queue = [offset];
  for (let head = 0; head < queue.length && chosen.size < LIMIT; head++) {
    const at = queue[head]!;
    const it = decoded.get(at);
    if (it === undefined || chosen.has(at)) continue;
    chosen.add(at);
    queue.push(...successors(it), ...(before.get(at) ?? []));
  }

  // leaders: targets, what follows a jump, a branch or something left out, and where nothing leads to
  const leaders = new Set<number>();
  for (const at of chosen) {
    const it = decoded.get(at)!;
    const target = targetOf(it);
    if (chosen.has(target)) leaders.add(target);
    if (endsBlock(it.operation)) leaders.add(at + it.length);
    const fallsIn = (before.get(at) ?? []).some((from) => {
      const other = decoded.get(from)!;
      return chosen.has(from) && from + other.length === at && !endsBlock(other.operation);
    });
    if (!fallsIn) leaders.add(at);
  }
  const blocks: Block[] = [];
  for (const at of [...leaders].filter((it) => chosen.has(it)).sort((x, y) => x - y)) {
    const instructions: Instruction[] = [];
    for (let next = at; chosen.has(next) && (next === at || !leaders.has(next)); ) {
      const it = decoded.get(next)!;
      instructions.push(it);
      if (endsBlock(it.operation)) break;
      next += it.length;
    }
    blocks.push({ instructions });
  }
  return blocks;
}

function successors(it: Instruction): number[] {
  const list: number[] = [];
  const target = targetOf(it);
  if (target >= 0) list.push(target);
  const leaves = it.operation === opcodes.J || it.operation === opcodes.J_FAR || it.operation === opcodes.JR;
  // behind a call the code usually goes on
  if (!leaves && it.offset + it.length < 4096) list.push(it.offset + it.length);
  return list;
}
