/**
 * What a request wants of a leaf: one access that must be permitted, or, for an ATS request, whatever there is (§3.6).
 */
import type { Choose } from "../latitude.ts";
import type { Access, Request } from "./outcome.ts";

export interface Rights {
  readonly r: boolean;
  readonly w: boolean;
  readonly x: boolean;
}

/** What a leaf grants. */
export interface Granted {
  readonly granted: Rights;
  /** D is asked for. */
  readonly dirty: boolean;
  /** A is asked for; "may" where the translation goes on although it will grant nothing (§3.4 does not say whether that is an access). */
  readonly accessed: "must" | "may";
}

export interface Wish {
  /** The access that names a fault. */
  cause(choose: Choose): Access;
  /** What a leaf with these rights grants; null is a page fault. `updating` tells whether hardware may set D here (SADE or GADE). */
  judge(rights: Rights, d: boolean, updating: boolean, choose: Choose): Granted | null;
}

function oneAccess(access: Access): Wish {
  return {
    cause: () => access,
    judge(rights) {
      const allowed = { read: rights.r, write: rights.w, execute: rights.x }[access];
      return allowed ? { granted: rights, dirty: access === "write", accessed: "must" } : null;
    },
  };
}

/**
 * An ATS request: missing rights clear bits of the completion instead of faulting (§3.6). W without D is worth nothing: either D is set now,
 * which a request without No-Write permits, or W is withheld. A page that cannot be read grants nothing at all (Exe only with R), but the
 * translation goes on: what is wrong further down is answered as for any other request. The two leaves are judged first stage first: a right
 * that one refuses is not sought in the other.
 */
function allThereIs(request: Request): Wish {
  let readable = true;
  let writable = true;
  return {
    // "Execute Requested" makes a request a read for execute, of whatever address type (§3.3, §4.2). Without it the request is a read, and a
    // write unless No-Write: which of them names the fault the specification does not say.
    cause(choose) {
      if (request.executeRequested) return "execute";
      const names: Access[] = request.noWrite ? ["read"] : ["write", "read"];
      return names[choose(names.length, "§3.6 does not say which access names the fault of an ATS request")]!;
    },
    judge(rights, d, updating, choose) {
      readable &&= rights.r;
      let w = rights.w && readable && writable;
      let dirty = false;
      if (w && !d) {
        if (request.noWrite || !updating) w = false;
        else if (choose(2, "§3.4: an ATS request without No-Write may set D") === 0) dirty = true;
        else w = false;
      }
      writable = w;
      const granted = { r: readable, w, x: rights.x && readable };
      return { granted, dirty, accessed: readable ? "must" : "may" };
    },
  };
}

/** Whether A or D of a leaf must be set for this; where that is open, a choice. */
export function marks(
  entry: { readonly a: boolean; readonly d: boolean },
  { dirty, accessed }: Pick<Granted, "dirty" | "accessed">,
  choose: Choose,
): boolean {
  if (dirty && !entry.d) return true;
  if (entry.a) return false;
  return accessed === "must" || choose(2, "§3.4, a translation that grants nothing") === 0;
}

export function wishOf(request: Request): Wish {
  return request.type === "ats" ? allThereIs(request) : oneAccess(request.access);
}
