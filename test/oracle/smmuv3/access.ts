/**
 * What a request asks of a leaf, and what it is granted: rights of either stage for the request's privilege (A-profile architecture), and the update of the
 * dirty state that goes with a write (§3.13.3).
 */
import type { Choose } from "../latitude.ts";
import type { ContextDescriptor, TableBase } from "./context-descriptor.ts";
import { bit, type Features } from "./identification.ts";
import type { Request } from "./outcome.ts";
import type { StreamTableEntry, StreamWorld } from "./stream-table-entry.ts";
import { DBM } from "./translation-table.ts";

export interface Rights {
  readonly r: boolean;
  /** A writable-clean page counts as writable where hardware updates the dirty state. */
  readonly w: boolean;
  readonly x: boolean;
  /** The write right depends on marking the page dirty. */
  readonly clean: boolean;
}

/** What is asked. "ats": a Translation Request, which is granted what there is (§13.7). */
export type Wish =
  | { readonly kind: "access"; readonly right: "r" | "w" | "x"; readonly privileged: boolean }
  | {
      readonly kind: "ats";
      readonly privileged: boolean;
      /** NW=0. */
      readonly write: boolean;
      readonly execute: boolean;
      /** STE.INSTCFG: reads count as fetches, as data, or as they come. */
      readonly reads: "fetches" | "data" | "incoming";
    };

/** A Data access that a walk makes itself: of a context descriptor or of a stage-1 descriptor; privilege has no say over them. */
export const TABLE_READ: Wish = { kind: "access", right: "r", privileged: false };
export const TABLE_WRITE: Wish = { kind: "access", right: "w", privileged: false };

/** The attributes of a request after the overrides of its stream table entry (§3.3.4, §13.1.2). */
export function wishOf(request: Request, ste: StreamTableEntry): Wish {
  const withPasid = request.ssid !== null && request.kind !== "translated";
  const privileged = ste.PRIVCFG === 2n ? false : ste.PRIVCFG === 3n ? true : withPasid && request.privileged;
  const incoming = withPasid && request.instruction;
  if (request.kind === "ats") {
    const reads = ste.INSTCFG === 2n ? "data" : ste.INSTCFG === 3n ? "fetches" : "incoming";
    return { kind: "ats", privileged, write: request.write, execute: incoming, reads };
  }
  if (request.write) return { kind: "access", right: "w", privileged };
  const fetch = ste.INSTCFG === 2n ? false : ste.INSTCFG === 3n ? true : incoming;
  return { kind: "access", right: fetch ? "x" : "r", privileged };
}

/** Whether a translation goes on after this stage: an access needs its right, a Translation Request any of what it may be granted. */
export function permitted(wish: Wish, rights: Rights): boolean {
  if (wish.kind === "access") return rights[wish.right];
  const { r, w, exe } = granted(wish, rights, () => 0);
  return r || w || exe;
}

/** The page is marked dirty: for a write, or a Translation Request for one, that is granted because of it. */
export function marksDirty(wish: Wish, rights: Rights): boolean {
  const writes = wish.kind === "access" ? wish.right === "w" : wish.write;
  return writes && rights.w && rights.clean;
}

export interface Granted {
  readonly r: boolean;
  readonly w: boolean;
  readonly exe: boolean;
}

/** The rights of an ATS completion (§13.7.1). */
export function granted(wish: Wish & { kind: "ats" }, rights: Rights, choose: Choose): Granted {
  const { r, x } = rights;
  const exe = wish.execute && (wish.reads === "fetches" ? x : wish.reads === "data" ? r : r && x);
  // With NW=1 a page that is dirty already may be granted for writing, or not; a clean one stays clean.
  const w = wish.write ? rights.w : rights.w && !rights.clean && choose(2, "§13.7: write permission for NW=1") === 0;
  return { r: wish.reads === "fetches" ? x : r, w, exe };
}

/** What tables above a leaf take away (APTable, PXNTable, UXNTable). */
export interface Hierarchy {
  readonly noWrite: boolean;
  readonly noEl0: boolean;
  readonly pxn: boolean;
  readonly uxn: boolean;
}

export const NO_HIERARCHY: Hierarchy = { noWrite: false, noEl0: false, pxn: false, uxn: false };

export function below(hierarchy: Hierarchy, base: TableBase, table: bigint): Hierarchy {
  if (base.HAD) return hierarchy;
  return {
    noWrite: hierarchy.noWrite || bit(table, 62n),
    noEl0: hierarchy.noEl0 || bit(table, 61n),
    uxn: hierarchy.uxn || bit(table, 60n),
    pxn: hierarchy.pxn || bit(table, 59n),
  };
}

/** Rights of a stage-1 leaf. `dirtyManaged`: hardware updates the dirty state. */
export function stage1Rights(
  world: StreamWorld,
  cd: ContextDescriptor,
  hierarchy: Hierarchy,
  leaf: bigint,
  dirtyManaged: boolean,
  privileged: boolean,
): Rights {
  const readOnly = bit(leaf, 7n);
  const writableClean = readOnly && dirtyManaged && bit(leaf, DBM);
  // A descriptor with DBM counts as writable, for execute permissions as well (§3.13.8, note).
  const w = (!readOnly || writableClean) && !hierarchy.noWrite;
  const clean = writableClean;
  if (world === "EL2") {
    // One privilege level, one XN bit.
    const xn = bit(leaf, 54n) || hierarchy.uxn;
    return { r: true, w, x: !xn && !(cd.WXN && w), clean };
  }
  const el0 = bit(leaf, 6n) && !hierarchy.noEl0;
  const uw = el0 && w;
  const ux = !bit(leaf, 54n) && !hierarchy.uxn;
  if (!privileged) return { r: el0, w: uw, x: ux && !(cd.WXN && uw), clean };
  // What EL0 may write is never executable above it.
  const px = !bit(leaf, 53n) && !hierarchy.pxn && !uw;
  const pan = cd.PAN && (el0 || (cd.EPAN && ux));
  return { r: !pan, w: w && !pan, x: px && !(cd.WXN && w), clean };
}

/** Rights of a stage-2 leaf. */
export function stage2Rights(f: Features, leaf: bigint, dirtyManaged: boolean, privileged: boolean): Rights {
  const writable = bit(leaf, 7n);
  const clean = !writable && dirtyManaged && bit(leaf, DBM);
  const xn = (leaf >> 53n) & 3n;
  const x = f.XNX ? xn === 0n || xn === (privileged ? 3n : 1n) : !bit(leaf, 54n);
  return { r: bit(leaf, 6n), w: writable || clean, x, clean };
}

export const ALL_RIGHTS: Rights = { r: true, w: true, x: true, clean: false };

/** What both stages permit. */
export function both(first: Rights, second: Rights): Rights {
  return {
    r: first.r && second.r,
    w: first.w && second.w,
    x: first.x && second.x,
    clean: first.clean || second.clean,
  };
}
