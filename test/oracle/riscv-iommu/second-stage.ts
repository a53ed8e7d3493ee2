/**
 * The second stage (§3.3; privileged specification, "Two-Stage Address Translation"): GPA to SPA by the tables under iohgatp.
 */

import type { Choose } from "../latitude.ts";
import type { DeviceContext } from "./device-context.ts";
import { type Implementation, physicalAddressBits, swapBytes } from "./implementation.ts";
import { Stop } from "./outcome.ts";
import { accessFault, decodeEntry, entryMeaning, guestPageFault, markUsed, SHAPES } from "./page-table-entry.ts";
import type { Tables } from "./tables.ts";
import { type Granted, marks, type Rights, type Wish } from "./wish.ts";

export interface SecondStageResult {
  readonly address: bigint;
  readonly r: boolean;
  readonly w: boolean;
  readonly x: boolean;
  readonly memoryType: bigint;
  /** Bytes of the leaf; null when Bare. */
  readonly span: bigint | null;
}

/**
 * Why the second stage is asked: for the request itself, for a load of a first-stage entry ("table-read"), for its A/D update
 * ("table-write"), or for a load of a process-directory entry, whose faults below are named differently (§3.3.2).
 */
export type SecondStagePurpose = "request" | "table-read" | "table-write" | "directory-read";

export interface SecondStageContext {
  readonly implementation: Implementation;
  readonly tables: Tables;
  readonly dc: DeviceContext;
  readonly choose: Choose;
}

export function secondStage(
  context: SecondStageContext,
  gpa: bigint,
  purpose: SecondStagePurpose,
  wish: Wish,
): SecondStageResult {
  const { implementation, tables, dc, choose } = context;
  const { mode, ppn, gscid } = dc.secondStage;
  if (mode === "bare") return { address: gpa, r: true, w: true, x: true, memoryType: 0n, span: null };
  const shape = SHAPES[mode];
  const implicit = purpose !== "request";
  const refuse = () => {
    // iotval2: the GPA, bit 0 for an implicit access, bit 1 for one that updates A/D (§4.2).
    const flags = (implicit ? 1n : 0n) | (purpose === "table-write" ? 2n : 0n);
    return new Stop(guestPageFault(wish.cause(choose)), (gpa & ~3n) | flags);
  };
  const stopAccess = () => new Stop(purpose === "directory-read" ? 265 : accessFault(wish.cause(choose)));
  // GPAs are two bits wider than the mode's virtual addresses; with SXL=1, 34 bits whatever the mode (§3.1.3.1).
  if (gpa >> (shape.addressBits + 2n) !== 0n) throw refuse();
  if (dc.sxl && gpa >> 34n !== 0n) throw refuse();
  let table = ppn << 12n;
  for (let level = shape.levels - 1; level >= 0; level--) {
    // The root table is four times as wide: its index takes the two extra bits.
    const indexBits = level === shape.levels - 1 ? shape.indexBits + 2n : shape.indexBits;
    const index = (gpa >> (12n + BigInt(level) * shape.indexBits)) & ((1n << indexBits) - 1n);
    const address = table + index * BigInt(shape.entryBytes);
    if (address >> physicalAddressBits(implementation) !== 0n) throw stopAccess();
    const loaded = tables.load(address, shape.entryBytes, { table: "second-stage", gscid, gpa }, ([value]) =>
      entryMeaning(implementation, shape, level, value!, implementation.be),
    );
    if (loaded.injected === "access") throw stopAccess();
    if (loaded.injected === "corrupt") throw new Stop(purpose === "directory-read" ? 269 : 274);
    const raw = loaded.values[0]!;
    const entry = decodeEntry(implementation, shape, level, raw, implementation.be);
    if (entry.kind === "bad") throw refuse();
    if (entry.kind === "pointer") {
      table = entry.ppn << 12n;
      continue;
    }
    // Every second-stage access is a User one.
    if (!entry.u) throw refuse();
    let marking: Pick<Granted, "dirty" | "accessed"> = { dirty: false, accessed: "must" };
    let granted: Rights = { r: entry.r, w: entry.w, x: entry.x };
    if (purpose === "table-write") {
      if (!entry.w) throw refuse();
      marking = { dirty: true, accessed: "must" };
    } else if (implicit) {
      if (!entry.r) throw refuse();
    } else {
      const judged = wish.judge(granted, entry.d, dc.gade, choose);
      if (judged === null) throw refuse();
      granted = judged.granted;
      marking = judged;
    }
    if (!entry.a && !dc.gade) throw refuse();
    if (marks(entry, marking, choose)) {
      if (!dc.gade) throw refuse();
      const after = markUsed(shape, raw, implementation.be, marking.dirty);
      if (tables.update(address, shape.entryBytes, raw, after) === "access") throw stopAccess();
    }
    // D may be set early by an implicit access to a first-stage entry if the page is writable (privileged specification; §3.4).
    if ((purpose === "table-read" || purpose === "table-write") && dc.gade && entry.w && !entry.d) {
      tables.permit(address, shape.entryBytes, implementation.be ? swapBytes(0x80n, shape.entryBytes) : 0x80n);
    }
    return {
      address: (entry.ppn << 12n) + (gpa % entry.span),
      ...granted,
      memoryType: entry.memoryType,
      span: entry.span,
    };
  }
  throw refuse();
}
