/**
 * Page-table entries of either stage (privileged specification, Sv32 to Sv57; §3.3, §3.4), and the shape of each mode's tables.
 */

import type { TableMode } from "./device-context.ts";
import { bit, bits, has, type Implementation, swapBytes } from "./implementation.ts";
import type { Access } from "./outcome.ts";
import type { EntryMeaning } from "./tables.ts";

export interface Shape {
  readonly levels: number;
  /** Address bits that one level indexes. */
  readonly indexBits: bigint;
  readonly entryBytes: number;
  /** Width of first-stage addresses; the second stage's is two more (Sv32x4 to Sv57x4). */
  readonly addressBits: bigint;
}

export const SHAPES: Readonly<Record<Exclude<TableMode, "bare">, Shape>> = {
  sv32: { levels: 2, indexBits: 10n, entryBytes: 4, addressBits: 32n },
  sv39: { levels: 3, indexBits: 9n, entryBytes: 8, addressBits: 39n },
  sv48: { levels: 4, indexBits: 9n, entryBytes: 8, addressBits: 48n },
  sv57: { levels: 5, indexBits: 9n, entryBytes: 8, addressBits: 57n },
};

/** Bytes that a leaf at `level` maps. */
export function leafBytes(shape: Shape, level: number): bigint {
  return 1n << (12n + BigInt(level) * shape.indexBits);
}

export interface Entry {
  readonly kind: "leaf" | "pointer" | "bad";
  readonly r: boolean;
  readonly w: boolean;
  readonly x: boolean;
  readonly u: boolean;
  readonly g: boolean;
  readonly a: boolean;
  readonly d: boolean;
  readonly memoryType: bigint;
  readonly ppn: bigint;
  /** Bytes mapped by a leaf: 64 KiB for a NAPOT one. */
  readonly span: bigint;
}

/** Reads an entry found at `level`. `raw` is what a little-endian reader sees; `swapped` tells that the table is big-endian. */
export function decodeEntry(
  implementation: Implementation,
  shape: Shape,
  level: number,
  raw: bigint,
  swapped: boolean,
): Entry {
  const pte = swapped ? swapBytes(raw, shape.entryBytes) : raw;
  const wide = shape.entryBytes === 8;
  const r = bit(pte, 1n);
  const w = bit(pte, 2n);
  const x = bit(pte, 3n);
  const u = bit(pte, 4n);
  const g = bit(pte, 5n);
  const a = bit(pte, 6n);
  const d = bit(pte, 7n);
  const ppn = wide ? bits(pte, 53n, 10n) : bits(pte, 31n, 10n);
  const memoryType = wide ? bits(pte, 62n, 61n) : 0n;
  const napot = wide && bit(pte, 63n);
  const reserved = !wide ? 0n : has(implementation, "Svrsw60t59b") ? bits(pte, 58n, 54n) : bits(pte, 60n, 54n);
  const fields = { r, w, x, u, g, a, d, memoryType, ppn };
  const bad: Entry = { ...fields, kind: "bad", span: leafBytes(shape, level) };
  if (!bit(pte, 0n)) return bad;
  if (!r && w) return bad; // 010 stays reserved (no shadow stacks, §3.3), and so is 110
  if (reserved !== 0n) return bad;
  if (memoryType === 3n || (memoryType !== 0n && !has(implementation, "Svpbmt"))) return bad;
  if (!r && !x) {
    // A pointer: D, A, U, PBMT and N are reserved there, and below level 0 there is nothing.
    if (a || d || u || memoryType !== 0n || napot || level === 0) return bad;
    return { ...fields, kind: "pointer", span: leafBytes(shape, level) };
  }
  if (napot) {
    if (level !== 0 || bits(ppn, 3n, 0n) !== 0b1000n) return bad;
    return { ...fields, kind: "leaf", ppn: ppn & ~0xfn, span: 0x10000n };
  }
  const span = leafBytes(shape, level);
  if ((ppn << 12n) % span !== 0n) return bad; // misaligned superpage
  return { ...fields, kind: "leaf", span };
}

/** The entry with A, and D if asked, set: what hardware updating stores (§3.4). */
export function markUsed(shape: Shape, raw: bigint, swapped: boolean, dirty: boolean): bigint {
  const mask = 0x40n | (dirty ? 0x80n : 0n);
  return raw | (swapped ? swapBytes(mask, shape.entryBytes) : mask);
}

export function entryMeaning(
  implementation: Implementation,
  shape: Shape,
  level: number,
  raw: bigint,
  swapped: boolean,
): EntryMeaning {
  const entry = decodeEntry(implementation, shape, level, raw, swapped);
  const valid = bit(swapped ? swapBytes(raw, shape.entryBytes) : raw, 0n);
  return { valid, leaf: entry.kind !== "pointer", span: entry.span, global: entry.g };
}

/** The original access decides the cause: instruction, read or write/AMO (§4.2). */
export function accessFault(access: Access): number {
  return { execute: 1, read: 5, write: 7 }[access];
}

export function pageFault(access: Access): number {
  return { execute: 12, read: 13, write: 15 }[access];
}

export function guestPageFault(access: Access): number {
  return { execute: 20, read: 21, write: 23 }[access];
}
