// Which code is translated together: the blocks that are connected with a hot slot, across pages. A block is a run of decoded slots that is entered at
// its first instruction only; every block is an entry of the region.
//
// Places in a region are positions: bytes from the virtual page that the hot slot is in. Code of other pages belongs to it as long as those lie at
// the same distances: the region's function looks before it goes there (region-writer.ts).
import * as layout from "../assembly/layout.ts";
import type { Instruction, InstructionSet } from "./instruction-set.ts";

export interface RegionPage {
  /** The decode page. */
  readonly page: number;
  /** What it had in DECODE_VERSION: another one, and its code is not what was read here. */
  readonly version: number;
}

export interface Block {
  /** Position of its first instruction. */
  readonly position: number;
  readonly instructions: readonly Instruction[];
}

export interface Region {
  /** By distance from the first page, in pages. */
  readonly pages: ReadonlyMap<number, RegionPage>;
  /** In order of position. */
  readonly blocks: readonly Block[];
}

/** More than this many instructions are not translated together. */
const LIMIT = 400;
/** Nor than this many where lines are finished: a guest may have its code in many short pieces. */
const FINISHED_LIMIT = 600;
/**
 * A bit of the function's for each (region-writer.ts). A loop that is in more is not worth it: a region that gathers from sixteen is as large as it may
 * be, and what V8 takes for one grows faster than its size.
 */
export const MAX_PAGES = 2;
const PAGE = 4096;
/** Bytes of code that a block does not go beyond: what runs on from the middle of one (after an access outside RAM, in a small budget) is soon at the next. */
const LINE = 128;

const lineOf = (position: number): number => Math.floor(position / LINE);
export const pageOf = (position: number): number => Math.floor(position / PAGE);
/** Offset in its page. */
export const offsetOf = (position: number): number => position - pageOf(position) * PAGE;

/** The instruction in a slot, a translated one's original included; null if there is none to translate. */
export function readSlot(view: DataView, page: number, offset: number, isa: InstructionSet): Instruction | null {
  const slot = page + offset * 4;
  const marked = view.getUint16(slot, true) === layout.TRANSLATED;
  const first = marked ? layout.ENTRIES + view.getUint32(slot + 4, true) * layout.ENTRY_BYTES : slot;
  return isa.read(view, slot, first, offset);
}

/** Code around a hot slot, as it is asked for. Not state: made and dropped while a region is looked for. */
class Code {
  readonly pages = new Map<number, RegionPage>();
  readonly #view: DataView;
  readonly #isa: InstructionSet;
  readonly #pageAt: (distance: number) => number;
  readonly #decoded = new Map<number, Instruction | null>();

  constructor(view: DataView, isa: InstructionSet, pageAt: (distance: number) => number) {
    this.#view = view;
    this.#isa = isa;
    this.#pageAt = pageAt;
  }

  /** Null if there is none to translate, or its page is not at hand. */
  at(position: number): Instruction | null {
    let it = this.#decoded.get(position);
    if (it === undefined) {
      const page = this.#page(pageOf(position));
      it = page === null ? null : readSlot(this.#view, page, offsetOf(position), this.#isa);
      this.#decoded.set(position, it);
    }
    return it;
  }

  /** Whether a line begins with a block that is translated; at its second halfword if an instruction runs into it. */
  isTranslated(line: number): boolean {
    const page = this.#page(pageOf(line * LINE));
    if (page === null) return false;
    const slot = page + offsetOf(line * LINE) * 4;
    const isHead = (at: number): boolean => this.#view.getUint16(at, true) === layout.TRANSLATED;
    return isHead(slot) || (this.#isa.alignment === 2 && isHead(slot + 8));
  }

  /** Whether a sample has met the 128 bytes around. */
  isWarm(position: number): boolean {
    const page = this.#page(pageOf(position));
    return page !== null && this.#view.getUint8(page + layout.DECODE_HEAT + (offsetOf(position) >> 7)) > 0;
  }

  #page(number: number): number | null {
    const known = this.pages.get(number);
    if (known !== undefined) return known.page;
    if (this.pages.size === MAX_PAGES) return null;
    const page = this.#pageAt(number);
    if (page === 0) return null;
    this.pages.set(number, { page, version: this.#view.getUint32(page + layout.DECODE_VERSION, true) });
    return page;
  }
}

/**
 * The blocks around `offset` of the running hart's page. `pageAt`: the decode page so many pages behind that one in the hart's address space, 0 if the
 * fetch TLB does not know.
 */
export function findRegion(
  view: DataView,
  offset: number,
  isa: InstructionSet,
  pageAt: (distance: number) => number,
): Region {
  const code = new Code(view, isa, pageAt);
  // who leads to whom in the first page: what leads to the hot slot may be the head of its loop
  const before = new Map<number, number[]>();
  const link = (from: number, to: number): void => {
    const list = before.get(to);
    if (list === undefined) before.set(to, [from]);
    else list.push(from);
  };
  for (let at = 0; at < PAGE; at += isa.alignment) {
    const it = code.at(at);
    if (it === null) continue;
    for (const next of successors(at, it)) if (pageOf(next) === 0) link(at, next);
  }

  const chosen = new Set<number>();
  const [warm, cold]: [number[], number[]] = [[offset], []];
  const choose = (at: number): void => {
    const it = chosen.has(at) ? null : code.at(at);
    if (it === null) return;
    chosen.add(at);
    // what follows in a straight line is as hot as this is
    const straight = it.flow === "next" || it.flow === "call" ? at + it.length : -1;
    for (const next of successors(at, it)) (next === straight || code.isWarm(next) ? warm : cold).push(next);
    for (const from of before.get(at) ?? []) {
      const runsInto = code.at(from)!.flow === "next";
      // straight code before this that has been translated leads here as it is
      if (runsInto && lineOf(from) !== lineOf(at) && code.isTranslated(lineOf(from))) continue;
      (code.isWarm(from) || runsInto ? warm : cold).push(from);
    }
  };
  for (let [head, coldHead] = [0, 0]; chosen.size < LIMIT; ) {
    if (head < warm.length) choose(warm[head++]!);
    else if (coldHead < cold.length) choose(cold[coldHead++]!);
    else break;
  }
  finishLines(code, chosen);
  return { pages: code.pages, blocks: blocksOf(code, chosen) };
}

/** Straight code that the limit has cut goes on to the end of its line: where the next one begins, every region that has it can be entered. */
function finishLines(code: Code, chosen: Set<number>): void {
  for (const from of [...chosen]) {
    for (let at = from; code.at(at)?.flow === "next"; ) {
      at += code.at(at)!.length;
      if (chosen.size >= FINISHED_LIMIT) return;
      if (chosen.has(at) || lineOf(at) !== lineOf(from) || code.at(at) === null) break;
      chosen.add(at);
    }
  }
}

function blocksOf(code: Code, chosen: ReadonlySet<number>): Block[] {
  const order = [...chosen].sort((x, y) => x - y);
  // leaders: targets, what follows a jump, a branch or something left out, where nothing leads to, and where a line begins
  const leaders = new Set<number>();
  let expected = Number.NaN;
  let line = Number.NaN;
  for (const at of order) {
    const it = code.at(at)!;
    const target = targetOf(at, it);
    if (target !== null && chosen.has(target)) leaders.add(target);
    if (at !== expected || lineOf(at) !== line) leaders.add(at);
    line = lineOf(at);
    expected = it.flow === "next" ? at + it.length : Number.NaN;
  }
  return order
    .filter((at) => leaders.has(at))
    .map((position) => {
      const instructions: Instruction[] = [];
      for (let at = position; chosen.has(at) && (at === position || !leaders.has(at)); ) {
        const it = code.at(at)!;
        instructions.push(it);
        if (it.flow !== "next") break;
        at += it.length;
      }
      return { position, instructions };
    });
}

function targetOf(position: number, it: Instruction): number | null {
  return it.target === null ? null : position - it.offset + it.target;
}

function successors(position: number, it: Instruction): number[] {
  const list: number[] = [];
  const target = targetOf(position, it);
  if (target !== null) list.push(target);
  if (it.flow !== "jump") list.push(position + it.length);
  return list;
}
