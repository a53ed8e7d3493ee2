// Which code is translated together: the blocks of one decode page that are connected, forwards or backwards, with a hot slot. A block is a run of
// decoded slots that is entered at its first instruction only; every block is an entry of the region.
import * as layout from "../assembly/layout.ts";
import type { Instruction, InstructionSet } from "./instruction-set.ts";

export interface Block {
  readonly instructions: readonly Instruction[];
}

/** More than this many instructions are not translated together. */
const LIMIT = 400;

/** The instruction in a slot, a translated one's original included; null if there is none to translate. */
export function readSlot(view: DataView, page: number, offset: number, isa: InstructionSet): Instruction | null {
  const slot = page + offset * 4;
  const marked = view.getUint16(slot, true) === layout.TRANSLATED;
  const first = marked ? layout.ENTRIES + view.getUint32(slot + 4, true) * layout.ENTRY_BYTES : slot;
  return isa.read(view, slot, first, offset);
}

/** The blocks around `offset` of the decode page at `page`, in order of address. */
export function findRegion(view: DataView, page: number, offset: number, isa: InstructionSet): Block[] {
  // all that is decoded, and who leads to whom
  const decoded = new Map<number, Instruction>();
  const before = new Map<number, number[]>();
  const link = (from: number, to: number): void => {
    const list = before.get(to);
    if (list === undefined) before.set(to, [from]);
    else list.push(from);
  };
  for (let at = 0; at < 4096; at += isa.alignment) {
    const it = readSlot(view, page, at, isa);
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
    if (chosen.has(it.target)) leaders.add(it.target);
    if (it.flow !== "next") leaders.add(at + it.length);
    const fallsIn = (before.get(at) ?? []).some((from) => {
      const other = decoded.get(from)!;
      return chosen.has(from) && from + other.length === at && other.flow === "next";
    });
    if (!fallsIn) leaders.add(at);
  }
  const blocks: Block[] = [];
  for (const at of [...leaders].filter((it) => chosen.has(it)).sort((x, y) => x - y)) {
    const instructions: Instruction[] = [];
    for (let next = at; chosen.has(next) && (next === at || !leaders.has(next)); ) {
      const it = decoded.get(next)!;
      instructions.push(it);
      if (it.flow !== "next") break;
      next += it.length;
    }
    blocks.push({ instructions });
  }
  return blocks;
}

function successors(it: Instruction): number[] {
  const list: number[] = [];
  if (it.target >= 0) list.push(it.target);
  if (it.flow !== "jump" && it.offset + it.length < 4096) list.push(it.offset + it.length);
  return list;
}
