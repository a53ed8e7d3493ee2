/**
 * What a request wants of a leaf: one access that must be permitted, or, for an ATS request, whatever there is (§3.6).
 */
import type { Choose } from "./latitude.ts";
import type { Access, Request } from "./outcome.ts";

export interface Rights {
  readonly r: boolean;
  readonly w: boolean;
  readonly x: boolean;
}

export interface Wish {
  /** The access that names a fault. */
  cause(choose: Choose): Access;
  /**
   * What a leaf with these rights grants; null is a page fault. `dirty` asks for D. `updating` tells whether hardware may set D here
   * (SADE or GADE).
   */
  judge(rights: Rights, d: boolean, updating: boolean, choose: Choose): { granted: Rights; dirty: boolean } | null;
}

function oneAccess(access: Access): Wish {
  return {
    cause: () => access,
    judge(rights) {
      const allowed = { read: rights.r, write: rights.w, execute: rights.x }[access];
      return allowed ? { granted: rights, dirty: access === "write" } : null;
    },
  };
}

/**
 * An ATS request: missing rights clear bits of the completion instead of faulting (§3.6). W without D is worth nothing: either D is set now,
 * which a request without No-Write permits, or W is withheld. A page that cannot be read grants nothing at all (Exe only with R).
 */
function allThereIs(request: Request, writeStillWanted: () => boolean, noteWrite: (w: boolean) => void): Wish {
  return {
    // The request is a read, a write unless No-Write, an execute if asked: any of these may name the fault; the specification does not say.
    cause(choose) {
      const names: Access[] = ["read"];
      if (!request.noWrite) names.unshift("write");
      if (request.executeRequested) names.push("execute");
      return names[choose(names.length, "§3.6 does not say which access names the fault of an ATS request")]!;
    },
    judge(rights, d, updating, choose) {
      if (!rights.r) return null;
      let w = rights.w && writeStillWanted();
      let dirty = false;
      if (w && !d) {
        if (request.noWrite || !updating) w = false;
        else if (choose(2, "§3.4: an ATS request without No-Write may set D") === 0) dirty = true;
        else w = false;
      }
      noteWrite(w);
      return { granted: { r: true, w, x: rights.x }, dirty };
    },
  };
}

/** The wish of a request. Its parts are judged first stage first: a right that one stage refuses is not sought in the next. */
export function wishOf(request: Request): Wish {
  if (request.type !== "ats") return oneAccess(request.access);
  let wanted = true;
  return allThereIs(
    request,
    () => wanted,
    (w) => {
      wanted = w;
    },
  );
}
