/**
 * The first stage (§3.3; privileged specification, "Virtual Address Translation Process"): IOVA to GPA by the tables under iosatp, every
 * entry of which is itself found through the second stage.
 */
import type { TableMode } from "./device-context.ts";
import { physicalAddressBits } from "./implementation.ts";
import { Stop } from "./outcome.ts";
import { accessFault, decodeEntry, entryMeaning, markUsed, pageFault, SHAPES } from "./page-table-entry.ts";
import { type SecondStageContext, secondStage } from "./second-stage.ts";
import { marks, type Rights, type Wish } from "./wish.ts";

export interface FirstStageTable {
  readonly mode: TableMode;
  readonly ppn: bigint;
  readonly pscid: bigint;
  /** PC.ta.SUM: supervisor data accesses to user pages. */
  readonly sum: boolean;
}

export interface FirstStageResult {
  readonly gpa: bigint;
  readonly r: boolean;
  readonly w: boolean;
  readonly x: boolean;
  readonly memoryType: bigint;
  readonly global: boolean;
  /** Bytes of the leaf; null when Bare. */
  readonly span: bigint | null;
}

export function firstStage(
  context: SecondStageContext,
  table: FirstStageTable,
  iova: bigint,
  supervisor: boolean,
  wish: Wish,
): FirstStageResult {
  const { implementation, tables, dc, choose } = context;
  if (table.mode === "bare") return { gpa: iova, r: true, w: true, x: true, memoryType: 0n, global: false, span: null };
  const shape = SHAPES[table.mode];
  const refuse = () => new Stop(pageFault(wish.cause(choose)));
  const stopAccess = () => new Stop(accessFault(wish.cause(choose)));
  if (table.mode === "sv32") {
    if (iova >> 32n !== 0n) throw refuse(); // tc.SXL=1 (§3.1.3.1)
  } else {
    // Canonical: bits 63 down to the highest translated one are all equal.
    const top = iova >> (shape.addressBits - 1n);
    if (top !== 0n && top !== (1n << (65n - shape.addressBits)) - 1n) throw refuse();
  }
  const gscid = dc.secondStage.mode === "bare" ? null : dc.secondStage.gscid;
  let global = false;
  let tableGpa = table.ppn << 12n;
  for (let level = shape.levels - 1; level >= 0; level--) {
    const index = (iova >> (12n + BigInt(level) * shape.indexBits)) & ((1n << shape.indexBits) - 1n);
    const entryGpa = tableGpa + index * BigInt(shape.entryBytes);
    const address = secondStage(context, entryGpa, "table-read", wish).address;
    if (address >> physicalAddressBits(implementation) !== 0n) throw stopAccess();
    const loaded = tables.load(
      address,
      shape.entryBytes,
      { table: "first-stage", gscid, pscid: table.pscid, iova, globalPath: global },
      ([value]) => entryMeaning(implementation, shape, level, value!, dc.sbe),
    );
    if (loaded.injected === "access") throw stopAccess();
    if (loaded.injected === "corrupt") throw new Stop(274);
    const raw = loaded.values[0]!;
    const entry = decodeEntry(implementation, shape, level, raw, dc.sbe);
    if (entry.kind === "bad") throw refuse();
    // G in a pointer makes everything below it global.
    global = global || entry.g;
    if (entry.kind === "pointer") {
      tableGpa = entry.ppn << 12n;
      continue;
    }
    let rights: Rights = { r: entry.r, w: entry.w, x: entry.x };
    // Not its requester's: also an ATS request ends here, "Success with R and W 0" (§3.6).
    if (!supervisor && !entry.u) throw refuse();
    if (supervisor && entry.u && !table.sum) throw refuse();
    if (supervisor && entry.u) rights = { r: entry.r, w: entry.w, x: false };
    const judged = wish.judge(rights, entry.d, dc.sade, choose);
    if (judged === null) throw refuse();
    if (!entry.a && !dc.sade) throw refuse();
    if (marks(entry, judged, choose)) {
      if (!dc.sade) throw refuse();
      // The update is an implicit write to the entry's GPA.
      const writable = secondStage(context, entryGpa, "table-write", wish).address;
      const after = markUsed(shape, raw, dc.sbe, judged.dirty);
      if (tables.update(writable, shape.entryBytes, raw, after) === "access") throw stopAccess();
    }
    return {
      gpa: (entry.ppn << 12n) + (iova % entry.span),
      ...judged.granted,
      memoryType: entry.memoryType,
      global,
      span: entry.span,
    };
  }
  throw refuse();
}
