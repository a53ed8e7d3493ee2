/** Spells a fault case out: the requests it is tried with, and what the specification says each must give. */
import type { FaultRecord, Request } from "../outcome.ts";
import type { FaultCase } from "./fault-cases.ts";
import { request } from "./scene.ts";

export interface Expected {
  readonly result:
    | { readonly kind: "aborted" }
    | {
        readonly kind: "ats";
        readonly completion: { readonly status: string; readonly r: boolean; readonly w: boolean };
      };
  /** All of the record but its cause; null if there is none. */
  readonly record: Omit<FaultRecord, "cause"> | null;
  /** Causes the record may give: one, but for an ATS request's access fault, whose access the specification leaves open. */
  readonly causes: readonly number[];
}

const ACCESSES = ["read", "write", "execute"] as const;

export function requestsOf(fault: FaultCase): { name: string; request: Request }[] {
  const types = fault.only ?? (["untranslated", "translated", "ats"] as const);
  const asked: { name: string; request: Request }[] = [];
  for (const type of types) {
    if (type === "ats") {
      // An ATS request is for a page: its address has no offset (PCIe ATS).
      const page = request({ ...fault.request, type });
      asked.push({ name: "ATS request", request: { ...page, iova: page.iova & ~0xfffn } });
    } else {
      for (const access of ACCESSES) {
        asked.push({ name: `${type} ${access}`, request: request({ ...fault.request, type, access }) });
      }
    }
  }
  return asked;
}

export function expectedOf(fault: FaultCase, asked: Request, dtf: boolean): Expected {
  const { cause } = fault;
  const pv = asked.processId !== null;
  // TTYP (§4.2): 1, 2, 3 untranslated execute, read, write; 5, 6, 7 translated; 8 ATS.
  const ttyp =
    asked.type === "ats" ? 8 : { execute: 1, read: 2, write: 3 }[asked.access] + (asked.type === "translated" ? 4 : 0);
  const record = {
    pid: asked.processId ?? 0n,
    pv,
    priv: pv && asked.privileged,
    ttyp,
    did: asked.deviceId,
    iotval: asked.iova,
    iotval2: fault.iotval2 ?? 0n,
  };
  const silent = dtf && fault.silencedByDtf;
  if (asked.type === "ats") {
    return {
      result: { kind: "ats", completion: { status: fault.ats, r: false, w: false } },
      record: silent || fault.ats === "success" ? null : record,
      causes: typeof cause === "number" ? [cause] : cause.slice(0, 2),
    };
  }
  const causes = typeof cause === "number" ? [cause] : [cause[ACCESSES.indexOf(asked.access)]!];
  return { result: { kind: "aborted" }, record: silent ? null : record, causes };
}
