/**
 * Interrupt remapping (§5.1, §9.9 to §9.11): from a dword that a device writes to 0xFEEx_xxxx to an interrupt, or a fault.
 */
import type { Choose } from "../latitude.ts";
import { bit, bits, features, type Identification, type Programming, zero } from "./capabilities.ts";
import { interruptFaultRecord } from "./fault-record.ts";
import { FAULTS, Fault, type FaultRecord } from "./outcome.ts";
import type { Tables } from "./tables.ts";

export interface InterruptRequest {
  readonly sid: bigint;
  /** 0xFEEx_xxxx. */
  readonly address: bigint;
  readonly data: bigint;
}

export interface RemappedInterrupt {
  readonly vector: bigint;
  /** DLM (§9.10). */
  readonly deliveryMode: bigint;
  readonly logical: boolean;
  readonly redirectionHint: boolean;
  readonly level: boolean;
  /** 8 bits, or 32 with EIME. */
  readonly destination: bigint;
}

export interface InterruptOutcome {
  readonly result: /** As the device wrote it. */
    | { readonly kind: "unchanged" }
    | { readonly kind: "remapped"; readonly interrupt: RemappedInterrupt }
    /** Posted (IM=1): which descriptor and vector; the rest is outside this oracle. */
    | { readonly kind: "posted"; readonly descriptor: bigint; readonly vector: bigint; readonly urgent: boolean }
    | { readonly kind: "blocked" };
  readonly record: FaultRecord | null;
}

/** Fault reasons whose record an IRTE's FPD suppresses. */
const SOURCE_MASKS = [0xffffn, 0xfffbn, 0xfff9n, 0xfff8n] as const;

export function remap(
  identification: Identification,
  programming: Programming,
  tables: Tables,
  request: InterruptRequest,
  choose: Choose,
): InterruptOutcome {
  const f = features(identification);
  if (!programming.IRES) return { result: { kind: "unchanged" }, record: null };
  const { sid, address, data } = request;
  const EIME = bit(programming.IRTA, 11n) && f.EIM;
  let index: bigint | null = null;
  let FPD = false;
  try {
    if (!bit(address, 4n)) {
      // Compatibility format (§5.1.2.1).
      if (EIME || !programming.CFIS) throw new Fault(0x25);
      return { result: { kind: "unchanged" }, record: null };
    }
    const SHV = bit(address, 3n);
    const handle = bits(address, 19n, 5n) | (bits(address, 2n, 2n) << 15n);
    // Reserved: data above the subhandle. Without SHV the data means nothing (§5.1.2.2).
    if (SHV && data >> 16n !== 0n) throw new Fault(0x20);
    index = handle + (SHV ? bits(data, 15n, 0n) : 0n);
    if (index >= 1n << (bits(programming.IRTA, 3n, 0n) + 1n)) throw new Fault(0x21);
    const at = (bits(programming.IRTA, 63n, 12n) << 12n) + index * 16n;
    if (at >> f.HAW !== 0n) throw new Fault(0x21);
    const entry = tables.load(at, 2, { kind: "interrupt", index }, ([low]) => ({
      cacheable: bit(low!, 0n) || f.CM,
      leaf: true,
      span: 0n,
      did: null,
    }));
    if (entry === null) throw new Fault(0x23);
    const [low, high] = entry as [bigint, bigint];
    FPD = bit(low, 1n);
    if (!bit(low, 0n)) throw new Fault(0x22);
    const posted = bit(low, 15n);
    const SVT = bits(high, 19n, 18n);
    if (reserved(low, high, posted, f.PI, EIME, choose)) throw new Fault(0x24);
    // §9.10: SVT 3 is reserved; of two implementations one blocks by 26h, the other by 24h.
    if (SVT === 3n) throw new Fault([0x26, 0x24][choose(2, "§9.10: SVT=3")]!);
    const [source, qualifier] = [bits(high, 15n, 0n), bits(high, 17n, 16n)];
    if (SVT === 1n && ((source ^ sid) & SOURCE_MASKS[Number(qualifier) as 0]) !== 0n) throw new Fault(0x26);
    if (SVT === 2n) {
      const bus = bits(sid, 15n, 8n);
      if (bus < bits(source, 15n, 8n) || bus > bits(source, 7n, 0n)) throw new Fault(0x26);
    }
    if (posted) {
      const descriptor = (bits(low, 63n, 38n) << 6n) | (bits(high, 63n, 32n) << 32n);
      const result = { kind: "posted", descriptor, vector: bits(low, 23n, 16n), urgent: bit(low, 14n) } as const;
      return { result, record: null };
    }
    const interrupt: RemappedInterrupt = {
      vector: bits(low, 23n, 16n),
      deliveryMode: bits(low, 7n, 5n),
      logical: bit(low, 2n),
      redirectionHint: bit(low, 3n),
      level: bit(low, 4n),
      destination: EIME ? bits(low, 63n, 32n) : bits(low, 47n, 40n),
    };
    return { result: { kind: "remapped", interrupt }, record: null };
  } catch (stop) {
    if (!(stop instanceof Fault)) throw stop;
    const { code } = stop;
    const record =
      FPD && FAULTS.get(code)!.qualified !== false
        ? null
        : interruptFaultRecord(sid, code, code === 0x20 || code === 0x25 ? null : index);
    return { result: { kind: "blocked" }, record };
  }
}

function reserved(low: bigint, high: bigint, posted: boolean, PI: boolean, EIME: boolean, choose: Choose): boolean {
  if (posted) {
    if (!PI) return true;
    return !zero(low, 7n, 2n) || !zero(low, 13n, 12n) || !zero(low, 37n, 24n) || !zero(high, 31n, 20n);
  }
  if (!zero(low, 14n, 12n) || !zero(low, 31n, 24n) || !zero(high, 63n, 20n)) return true;
  const mode = bits(low, 7n, 5n);
  // Delivery modes 3 and 6 are reserved values; whether they fault no source says.
  if ((mode === 3n || mode === 6n) && choose(2, "§9.10: reserved delivery modes") === 0) return true;
  // xAPIC: only bits 47:40 of DST.
  const unused = !zero(low, 63n, 48n) || !zero(low, 39n, 32n);
  return !EIME && unused && choose(2, "§9.10: DST beyond the xAPIC's bits") === 0;
}
