/**
 * From a PASID to its entry: directory (§9.5) and table (§9.6), and what makes an entry reserved or invalid.
 */
import { agaw, bit, bits, type Features, zero } from "./capabilities.ts";
import { Fault } from "./outcome.ts";
import type { Run, ScalableContext } from "./root-and-context.ts";

export interface PasidEntry {
  readonly PGTT: "first" | "second" | "nested" | "pass-through";
  readonly DID: bigint;
  readonly SSADE: boolean;
  readonly PWSNP: boolean;
  readonly SSPTPTR: bigint;
  /** Of the second stage. */
  readonly levels: number;
  readonly width: bigint;
  readonly SRE: boolean;
  readonly WPE: boolean;
  readonly EAFE: boolean;
  readonly firstLevels: number;
  readonly FSPTPTR: bigint;
}

export function pasidEntry(run: Run, { PASIDDIRPTR }: ScalableContext, pasid: bigint): PasidEntry {
  const { f, tables, request } = run;
  const { sid } = request;
  const at = PASIDDIRPTR + (pasid >> 6n) * 8n;
  const directory = tables.load(at, 1, { kind: "pasid-directory", sid, pasid }, ([value]) => ({
    cacheable: bit(value!, 0n) || f.CM,
    leaf: true,
    span: 0n,
    did: bit(value!, 0n) ? null : 0n,
  }));
  if (directory === null) throw new Fault(0x50);
  const pointer = directory[0]!;
  run.FPD ||= bit(pointer, 1n);
  if (!bit(pointer, 0n)) throw new Fault(0x51);
  if (!zero(pointer, 11n, 2n) || !zero(pointer, 63n, f.HAW)) throw new Fault(0x52);
  const entryAt = (bits(pointer, 63n, 12n) << 12n) + bits(pasid, 5n, 0n) * 64n;
  const entry = tables.load(entryAt, 8, { kind: "pasid-entry", sid, pasid }, ([q0, q1]) => ({
    cacheable: bit(q0!, 0n) || f.CM,
    leaf: true,
    span: 0n,
    did: bit(q0!, 0n) ? bits(q1!, 15n, 0n) : 0n,
  }));
  if (entry === null) throw new Fault(0x58);
  run.FPD ||= bit(entry[0]!, 1n);
  if (!bit(entry[0]!, 0n)) throw new Fault(0x59);
  if (hasReserved(run, entry)) throw new Fault(0x5a);
  return decode(f, entry);
}

function hasReserved({ f, choose }: Run, entry: readonly bigint[]): boolean {
  const [q0, q1, q2, ...rest] = entry as [bigint, bigint, bigint, ...bigint[]];
  const PGTT = bits(q0, 8n, 6n);
  if (bit(q0, 5n) || !zero(q0, 11n, 10n)) return true;
  if (!f.SSADS && bit(q0, 9n)) return true;
  if (!f.SSTS && (bits(q0, 4n, 2n) !== 0n || bit(q0, 9n) || bits(q0, 63n, 12n) !== 0n)) return true;
  if (!zero(q1, 22n, 16n) || !zero(q1, 31n, 27n) || !zero(q1, 15n, f.domainIdBits)) return true;
  if (!f.SMPWCS && bit(q1, 23n)) return true;
  if (!f.SC && bit(q1, 24n)) return true;
  if (!f.MTS && (bits(q1, 26n, 25n) !== 0n || bits(q1, 63n, 32n) !== 0n)) return true;
  if (bit(q2, 1n) || !zero(q2, 11n, 8n)) return true;
  if (!f.FSTS && (bits(q2, 3n, 2n) !== 0n || bit(q2, 4n) || bits(q2, 63n, 12n) !== 0n)) return true;
  if (!f.SRS && bit(q2, 0n)) return true;
  if (!f.EAFS && bit(q2, 7n)) return true;
  if (rest.some((value) => value !== 0n)) return true;
  // Pointers beyond the host's addresses. FSPTPTR of PGTT=3 is a guest's address; of a stage that is not used it is nobody's.
  if (!zero(q0, 63n, f.HAW)) {
    if (PGTT === 2n || PGTT === 3n || choose(2, "§9.6: upper bits of SSPTPTR that is not used") === 0) return true;
  }
  if (!zero(q2, 63n, f.HAW)) {
    if (PGTT === 1n || choose(2, "§9.6: upper bits of FSPTPTR with PGTT other than 1") === 0) return true;
  }
  return false;
}

/** Throws 5Bh for what the unit cannot do. */
function decode(f: Features, [q0, q1, q2]: readonly bigint[]): PasidEntry {
  const PGTT = bits(q0!, 8n, 6n);
  const kinds = {
    1: f.FSTS ? "first" : null,
    2: f.SSTS ? "second" : null,
    3: f.NEST && f.FSTS && f.SSTS ? "nested" : null,
    4: f.PT ? "pass-through" : null,
  } as const;
  const kind = kinds[Number(PGTT) as keyof typeof kinds] ?? null;
  if (kind === null) throw new Fault(0x5b);
  const AW = agaw(f, bits(q0!, 4n, 2n));
  if ((kind === "second" || kind === "nested") && AW === null) throw new Fault(0x5b);
  const FSPM = bits(q2!, 3n, 2n);
  if ((kind === "first" || kind === "nested") && (FSPM > 1n || (FSPM === 1n && !f.FS5LP))) throw new Fault(0x5b);
  return {
    PGTT: kind,
    DID: bits(q1!, 15n, 0n),
    SSADE: bit(q0!, 9n),
    PWSNP: bit(q1!, 23n),
    SSPTPTR: bits(q0!, 63n, 12n) << 12n,
    levels: AW?.levels ?? 0,
    width: AW?.width ?? 0n,
    SRE: bit(q2!, 0n),
    WPE: bit(q2!, 4n),
    EAFE: bit(q2!, 7n),
    firstLevels: FSPM === 1n ? 5 : 4,
    FSPTPTR: bits(q2!, 63n, 12n) << 12n,
  };
}
