/**
 * Context descriptors: from a SubstreamID to one (§5.2, §5.3), its fields and whether it is ILLEGAL (§5.4, §5.4.2).
 */
import type { Choose } from "../latitude.ts";
import { bit, bits, type Features } from "./identification.ts";
import { Fault, type FaultModel } from "./outcome.ts";
import { aligned } from "./stream-table.ts";
import { effectiveSize, hasSubstreams, type StreamTableEntry, type StreamWorld } from "./stream-table-entry.ts";
import type { Tables } from "./tables.ts";
import { type Granule, granuleOfTG0, granuleOfTG1 } from "./translation-table.ts";

export interface ContextTables {
  readonly f: Features;
  readonly tables: Tables;
  readonly ste: StreamTableEntry;
  readonly choose: Choose;
  /** The address of a context descriptor, or of a level-1 one, as a physical address: through stage 2 if it is on. */
  readonly physical: (address: bigint) => bigint;
}

/** Eight doublewords. `ssid` is 0 where there is no SubstreamID. */
export function locateContextDescriptor(context: ContextTables, sid: bigint, ssid: bigint): readonly bigint[] {
  const { f, tables, ste, choose } = context;
  // In any state (§5.4.1).
  const meaning = () => ({ cacheable: true, leaf: true, span: 0n, global: false });
  const address = descriptorAddress();
  const at = context.physical(address);
  const descriptor = tables.load(at, 8, { kind: "CD", sid, ssid }, meaning);
  if (descriptor === null) throw new Fault("F_CD_FETCH", { fetchAddress: at });
  return descriptor;

  function descriptorAddress(): bigint {
    if (!hasSubstreams(f, ste)) return ste.S1ContextPtr;
    const leafBits = ste.S1Fmt === 1n ? 6n : ste.S1Fmt === 2n ? 10n : null;
    if (leafBits === null) return aligned(ste.S1ContextPtr, 64n << ste.S1CDMax) + ssid * 64n;
    const level1Bytes = ste.S1CDMax > leafBits ? 8n << (ste.S1CDMax - leafBits) : 8n;
    const level1 = aligned(ste.S1ContextPtr, level1Bytes > 64n ? level1Bytes : 64n);
    const at = context.physical(level1 + (ssid >> leafBits) * 8n);
    const read = tables.load(at, 1, { kind: "L1CD", sid, ssid }, meaning);
    if (read === null) throw new Fault("F_CD_FETCH", { fetchAddress: at });
    const level1Descriptor = read[0]!;
    if (!bit(level1Descriptor, 0n)) throw new Fault("C_BAD_SUBSTREAMID");
    const leaf = aligned(bits(level1Descriptor, 55n, 12n) << 12n, 64n << leafBits);
    // §3.4.3 (3), (4).
    if (leaf >> f.IAS !== 0n && (!ste.stage2 || choose(2, "§3.4.3: L2Ptr beyond the IAS") === 0))
      throw new Fault("C_BAD_SUBSTREAMID");
    return leaf + (ssid & ((1n << leafBits) - 1n)) * 64n;
  }
}

/** One half of the input range. */
export interface TableBase {
  readonly EPD: boolean;
  readonly TSZ: bigint;
  /** Null: Reserved or not supported. */
  readonly granule: Granule | null;
  readonly TTB: bigint;
  readonly HAD: boolean;
  readonly E0PD: boolean;
  readonly TBI: boolean;
}

export interface ContextDescriptor {
  readonly V: boolean;
  readonly ENDI: boolean;
  readonly AA64: boolean;
  readonly IPS: bigint;
  readonly AFFD: boolean;
  readonly WXN: boolean;
  readonly PAN: boolean;
  readonly EPAN: boolean;
  readonly HA: boolean;
  readonly HD: boolean;
  readonly HAFT: boolean;
  readonly S: boolean;
  readonly R: boolean;
  readonly A: boolean;
  readonly ASID: bigint;
  /** Translation table base 0, and 1 where the world has one. */
  readonly bases: readonly TableBase[];
}

export function decodeContextDescriptor(f: Features, world: StreamWorld, dw: readonly bigint[]): ContextDescriptor {
  const [d0, d1, d2] = dw as [bigint, bigint, bigint];
  const el2 = world === "EL2";
  const base0: TableBase = {
    EPD: !el2 && bit(d0, 14n),
    TSZ: bits(d0, 5n, 0n),
    granule: granuleOfTG0(f, bits(d0, 7n, 6n)),
    TTB: bits(d1, 51n, 4n) << 4n,
    HAD: f.HAD && bit(d1, 1n),
    E0PD: !el2 && f.E0PD && bit(d1, 2n),
    TBI: bit(d0, 38n),
  };
  const base1: TableBase = {
    EPD: bit(d0, 30n),
    TSZ: bits(d0, 21n, 16n),
    granule: granuleOfTG1(f, bits(d0, 23n, 22n)),
    TTB: bits(d2, 51n, 4n) << 4n,
    HAD: f.HAD && bit(d2, 1n),
    E0PD: f.E0PD && bit(d2, 2n),
    TBI: bit(d0, 39n),
  };
  return {
    V: bit(d0, 31n),
    ENDI: bit(d0, 15n),
    AA64: bit(d0, 41n),
    IPS: bits(d0, 34n, 32n),
    AFFD: bit(d0, 35n),
    WXN: bit(d0, 36n),
    PAN: !el2 && bit(d0, 40n),
    EPAN: f.EPAN && bit(d1, 59n),
    HD: bit(d0, 42n),
    HA: bit(d0, 43n),
    HAFT: f.HTTU === 3n && bit(d1, 3n),
    S: bit(d0, 44n),
    R: bit(d0, 45n),
    A: bit(d0, 46n),
    ASID: bits(d0, 63n, 48n),
    bases: el2 ? [base0] : [base0, base1],
  };
}

export function stage1Model({ A, R, S }: ContextDescriptor): FaultModel {
  return { abort: A, record: R, stall: S };
}

/** The descriptor behaves as if V=0 (§5.4.2). */
export function illegalContextDescriptor(
  f: Features,
  ste: StreamTableEntry,
  world: StreamWorld,
  cd: ContextDescriptor,
): boolean {
  if (!cd.V) return true;
  if (ste.S1STALLD && cd.S) return true;
  if (f.TERM_MODEL && !cd.A) return true;
  if (cd.S && f.STALL_MODEL === 1n) return true;
  if (!cd.S && f.STALL_MODEL === 2n) return true;
  const walks = cd.bases.some(({ EPD }) => !EPD);
  if (walks && ((cd.ENDI && f.TTENDIAN === 2n) || (!cd.ENDI && f.TTENDIAN === 3n))) return true;
  if (!cd.AA64) return true;
  if ((cd.HA || cd.HD) && f.HTTU === 0n) return true;
  if (cd.HD && f.HTTU === 1n) return true;
  if (cd.HAFT && !cd.HA) return true;
  if (world !== "EL2" && !f.ASID16 && cd.ASID >> 8n !== 0n) return true;
  const size = effectiveSize(f, cd.IPS);
  return cd.bases.some(({ EPD, TSZ, granule, TTB }) => {
    if (EPD) return false;
    if (granule === null) return true;
    const largest = !f.STT ? 39n : granule.bits === 16n ? 47n : 48n;
    const smallest = f.VAX >= 1n && granule.bits === 16n ? 12n : 16n;
    if (TSZ > largest || TSZ < smallest) return true;
    return TTB >> size !== 0n || (TTB >> 48n !== 0n && granule.bits < 16n);
  });
}
