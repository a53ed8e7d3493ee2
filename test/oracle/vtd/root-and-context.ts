/**
 * From a Source-ID to its context entry: root and context tables of legacy mode (§9.1, §9.3) and of scalable mode (§9.2, §9.4), their reserved bits and
 * what makes them invalid.
 */
import type { Choose } from "../latitude.ts";
import { agaw, bit, bits, type Features, zero } from "./capabilities.ts";
import { Fault, type Request } from "./outcome.ts";
import type { Tables } from "./tables.ts";

/** What a request has met so far. */
export interface Run {
  readonly f: Features;
  readonly tables: Tables;
  readonly request: Request;
  readonly choose: Choose;
  /** Fault processing is disabled by a structure read so far (§7.2.2: also by the absent one that ends it). */
  FPD: boolean;
}

export interface LegacyContext {
  readonly TT: bigint;
  readonly SSPTPTR: bigint;
  readonly levels: number;
  readonly width: bigint;
  readonly DID: bigint;
}

/** Absent ones are cached with CM=1 only (§6.1), under domain 0. */
const rootMeaning =
  ({ CM }: Features) =>
  ([first]: readonly bigint[]) => {
    const present = bit(first!, 0n);
    return { cacheable: CM || present, leaf: true, span: 0n, did: present ? null : 0n };
  };

export function legacyContext(run: Run, RTADDR: bigint): LegacyContext {
  const { f, tables, request } = run;
  const { sid } = request;
  const at = (bits(RTADDR, 63n, 12n) << 12n) + bits(sid, 15n, 8n) * 16n;
  const root = tables.load(at, 2, { kind: "root", sid, scalable: false }, rootMeaning(f));
  if (root === null) throw new Fault(0x08);
  const [low, high] = root as [bigint, bigint];
  if (!bit(low, 0n)) throw new Fault(0x01);
  if (!zero(low, 11n, 1n) || !zero(low, 63n, f.HAW) || high !== 0n) throw new Fault(0x0a);
  const contextAt = (bits(low, 63n, 12n) << 12n) + bits(sid, 7n, 0n) * 16n;
  const context = tables.load(contextAt, 2, { kind: "context", sid, scalable: false }, ([lo, hi]) => ({
    cacheable: bit(lo!, 0n) || f.CM,
    leaf: true,
    span: 0n,
    did: bit(lo!, 0n) ? bits(hi!, 23n, 8n) : 0n,
  }));
  if (context === null) throw new Fault(0x09);
  const [lo, hi] = context as [bigint, bigint];
  run.FPD = bit(lo, 1n);
  if (!bit(lo, 0n)) throw new Fault(0x02);
  const TT = bits(lo, 3n, 2n);
  const reserved = !zero(lo, 11n, 4n) || bit(hi, 7n) || !zero(hi, 63n, 24n) || !zero(hi, 23n, 8n + f.domainIdBits);
  if (reserved) throw new Fault(0x0b);
  if (!zero(lo, 63n, f.HAW)) {
    // SSPTPTR is ignored with TT=2 (§9.3); whether its upper bits are still reserved no source says.
    if (TT !== 2n || run.choose(2, "§9.3: upper bits of an ignored SSPTPTR") === 0) throw new Fault(0x0b);
  }
  const AW = agaw(f, bits(hi, 2n, 0n));
  if (AW === null || TT === 3n || (TT === 1n && !f.DT) || (TT === 2n && !f.PT)) throw new Fault(0x03);
  if (request.kind !== "untranslated" && TT !== 1n) throw new Fault(0x0d);
  return { TT, SSPTPTR: bits(lo, 63n, 12n) << 12n, ...AW, DID: bits(hi, 23n, 8n) };
}

export interface ScalableContext {
  readonly PDTS: bigint;
  readonly PASIDDIRPTR: bigint;
  readonly RID_PASID: bigint;
  readonly RID_PRIV: boolean;
}

export function scalableContext(run: Run, RTADDR: bigint): ScalableContext {
  const { f, tables, request, choose } = run;
  const { sid, pasid } = request;
  // Two halves of 8 bytes; only the one of this devfn is looked at (§9.2).
  const upper = bit(sid, 7n) ? 8n : 0n;
  const at = (bits(RTADDR, 63n, 12n) << 12n) + bits(sid, 15n, 8n) * 16n + upper;
  const root = tables.load(at, 1, { kind: "root", sid, scalable: true }, rootMeaning(f));
  if (root === null) throw new Fault(0x38);
  const half = root[0]!;
  if (!bit(half, 0n)) throw new Fault(0x39);
  if (!zero(half, 11n, 1n) || !zero(half, 63n, f.HAW)) throw new Fault(0x3a);
  const contextAt = (bits(half, 63n, 12n) << 12n) + bits(sid, 6n, 0n) * 32n;
  const context = tables.load(contextAt, 4, { kind: "context", sid, scalable: true }, ([q0]) => ({
    cacheable: bit(q0!, 0n) || f.CM,
    leaf: true,
    span: 0n,
    did: null,
  }));
  if (context === null) throw new Fault(0x40);
  const [q0, q1, q2, q3] = context as [bigint, bigint, bigint, bigint];
  run.FPD = bit(q0, 1n);
  if (!bit(q0, 0n)) throw new Fault(0x41);
  const [DTE, PASIDE, PRE] = [bit(q0, 2n), bit(q0, 3n), bit(q0, 4n)];
  const PDTS = bits(q0, 11n, 9n);
  const RID_PASID = bits(q1, 19n, 0n);
  const reserved =
    !zero(q0, 8n, 5n) ||
    !zero(q0, 63n, f.HAW) ||
    !zero(q1, 63n, 21n) ||
    q2 !== 0n ||
    q3 !== 0n ||
    (!f.RPRIVS && bit(q1, 20n)) ||
    (!f.RPS && RID_PASID !== 0n);
  if (reserved) throw new Fault(0x42);
  // Enables of what the unit has not: reserved or invalid programming, no source says which.
  if ((DTE && !f.DT) || (PASIDE && !f.PASID) || (PRE && !f.PRS))
    throw new Fault([0x42, 0x43][choose(2, "§9.4: DTE, PASIDE, PRE without the capability")]!);
  const limit = 1n << (PDTS + 13n);
  if (RID_PASID >= limit) throw new Fault([0x43, 0x48][choose(2, "§7.1.3: SCT.4 or SCT.9")]!);
  if (request.kind !== "untranslated" && !DTE) throw new Fault(0x44);
  if (pasid !== null) {
    if (!PASIDE) throw new Fault(0x45);
    if (pasid >= limit) throw new Fault(0x46);
  }
  return { PDTS, PASIDDIRPTR: bits(q0, 63n, 12n) << 12n, RID_PASID, RID_PRIV: bit(q1, 20n) };
}
