/** The oracle's tables, with a list of what a request read of them: gaps of QEMU are told by what lay on the way. */
import { everyOutcome } from "../latitude.ts";
import type { Memory } from "../memory.ts";
import type { Identification, Programming } from "../vtd/capabilities.ts";
import type { Outcome, Request } from "../vtd/outcome.ts";
import { DirectTables, type EntryTag, type Tables } from "../vtd/tables.ts";
import { translate } from "../vtd/translate.ts";
import { inRam, RAM_PAGES } from "./ram.ts";

export interface Read {
  readonly address: bigint;
  readonly tag: EntryTag;
  /** Null: the read failed. */
  readonly values: readonly bigint[] | null;
}

class WalkedTables implements Tables {
  readonly reads: Read[] = [];
  readonly #direct: DirectTables;
  constructor(memory: Memory) {
    this.#direct = new DirectTables(memory);
  }
  get updates() {
    return this.#direct.updates;
  }
  load(address: bigint, quadwords: number, tag: EntryTag): readonly bigint[] | null {
    const values = this.#direct.load(address, quadwords);
    this.reads.push({ address, tag, values });
    return values;
  }
  startOfWalk(...start: Parameters<Tables["startOfWalk"]>): bigint {
    return this.#direct.startOfWalk(...start);
  }
  update(update: Parameters<Tables["update"]>[0]): boolean {
    return this.#direct.update(update);
  }
}

export interface Allowed {
  readonly outcome: Outcome;
  readonly reads: readonly Read[];
}

/** What the specification permits, each with what was read. Null: too much to enumerate. Memory is all of QEMU's RAM. */
export function allowed(
  identification: Identification,
  programming: Programming,
  memory: Memory,
  request: Request,
): Allowed[] | null {
  const whole = { ...memory, pages: RAM_PAGES };
  return everyOutcome((choose) => {
    const tables = new WalkedTables(whole);
    const outcome = translate(identification, programming, tables, request, choose);
    return { outcome, reads: tables.reads };
  });
}

/**
 * Places in RAM that the request may mean: what is permitted, and what the last entry read would give if nothing forbade it. Quadwords.
 */
export function placesOf(possible: readonly Allowed[], request: Request): bigint[] {
  const places = new Set<bigint>();
  for (const { outcome, reads } of possible) {
    if (outcome.result.kind === "translated") places.add(outcome.result.address);
    const last = reads.at(-1);
    if (last === undefined || (last.tag.kind !== "first-stage" && last.tag.kind !== "second-stage")) continue;
    if (last.values === null) continue;
    const below = (1n << (12n + 9n * BigInt(last.tag.level - 1))) - 1n;
    const from = last.tag.kind === "second-stage" ? last.tag.address : request.address;
    places.add((last.values[0]! & ((1n << 48n) - 4096n) & ~below) | (from & below));
  }
  return [...places].map((place) => place & ~7n).filter(inRam);
}
