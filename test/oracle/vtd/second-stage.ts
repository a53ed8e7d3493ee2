/**
 * Second-stage translation (§3.7, §9.8), by itself and under a first stage (§3.8): entries, faults, rights, accessed and dirty flags.
 */
import type { Choose } from "../latitude.ts";
import { bit, bits, type Features, zero } from "./capabilities.ts";
import { Fault } from "./outcome.ts";
import type { Tables } from "./tables.ts";

export interface SecondStage {
  readonly f: Features;
  readonly tables: Tables;
  readonly choose: Choose;
  readonly DID: bigint;
  readonly root: bigint;
  readonly levels: number;
  /** Of the tables; the input is also limited by MGAW. */
  readonly width: bigint;
  /** Hardware sets A and D. */
  readonly flags: boolean;
  /** Walks are snooped, so that flags may be set at all (§9.6, PWSNP). */
  readonly snooped: boolean;
}

/** Whose fault reasons: of legacy mode, of scalable mode. Null: not present is told as a missing right (legacy mode). */
export interface Reasons {
  readonly tooWide: number;
  readonly rootAccess: number;
  readonly access: number;
  readonly absent: number | null;
  readonly reserved: number;
}

export const LEGACY: Reasons = { tooWide: 0x04, rootAccess: 0x03, access: 0x07, absent: null, reserved: 0x0c };
export const SCALABLE: Reasons = { tooWide: 0x84, rootAccess: 0x7b, access: 0x78, absent: 0x79, reserved: 0x7a };

export interface Rights {
  readonly r: boolean;
  readonly w: boolean;
}

export interface SecondStageLeaf {
  readonly address: bigint;
  readonly rights: Rights;
  /** Bytes that the leaf maps. */
  readonly span: bigint;
  /** Sets what the walk owes: A where it is deferred, D of the leaf. Throws if a flag cannot be set. */
  readonly finish: (write: "none" | "request" | "update") => void;
}

const A = 1n << 8n;
const D = 1n << 9n;

/** `right`: what is told where an absent entry is a missing right. */
export function secondStage(stage: SecondStage, reasons: Reasons, input: bigint, right: number): SecondStageLeaf {
  const { f, tables, choose } = stage;
  const width = stage.width < f.MGAW ? stage.width : f.MGAW;
  if (input >> width !== 0n) throw new Fault(reasons.tooWide);
  let table = tables.startOfWalk("second-stage", stage.DID, null, stage.root);
  let rights: Rights = { r: true, w: true };
  /** A flag that could not be set; whether that is told at once or after what is wrong further down is open. */
  let owed: Fault | null = null;
  const set = (at: bigint, value: bigint, mask: bigint, dirty: boolean) => {
    if ((value & mask) === mask) return;
    const refused = !stage.snooped
      ? new Fault(0x7c)
      : tables.update({ address: at, mask, required: true, dirty }, value)
        ? null
        : new Fault(0x7d);
    if (refused === null) return;
    if (choose(2, "§3.7.2: when a flag that cannot be set is told") === 0) throw refused;
    owed ??= refused;
  };
  for (let level = stage.levels; ; level--) {
    const shift = 12n + 9n * BigInt(level - 1);
    const at = table + bits(input, shift + 8n, shift) * 8n;
    const isLeaf = (value: bigint) => level === 1 || bit(value, 7n);
    const tag = { kind: "second-stage", did: stage.DID, address: input, level } as const;
    const read = tables.load(at, 1, tag, ([value]) => ({
      cacheable: (present(value!) && !reserved(f, level, value!)) || f.CM,
      leaf: !present(value!) || isLeaf(value!),
      span: 1n << shift,
      did: null,
    }));
    if (read === null) throw new Fault(level === stage.levels ? reasons.rootAccess : reasons.access);
    const value = read[0]!;
    if (!present(value)) throw new Fault(reasons.absent ?? right);
    if (reserved(f, level, value)) throw new Fault(reasons.reserved);
    rights = { r: rights.r && bit(value, 0n), w: rights.w && bit(value, 1n) };
    if (stage.flags) set(at, value, A, false);
    if (!isLeaf(value)) {
      table = bits(value, 51n, 12n) << 12n;
      continue;
    }
    const span = 1n << shift;
    return {
      address: ((bits(value, 51n, 12n) << 12n) & ~(span - 1n)) | (input & (span - 1n)),
      rights,
      span,
      finish: (write) => {
        if (stage.flags && write !== "none") set(at, value, A | D, write === "request");
        if (owed !== null) throw owed;
      },
    };
  }
}

/** R=W=0 is not present, and then nothing else is looked at (§9.8). X is ignored: no unit has ERS. */
function present(value: bigint): boolean {
  return bits(value, 1n, 0n) !== 0n;
}

function reserved(f: Features, level: number, value: bigint): boolean {
  if (!zero(value, 51n, f.HAW) || bit(value, 62n)) return true;
  const large = level > 1 && bit(value, 7n);
  if (large && (level > 3 || !bit(f.SSLPS, BigInt(level - 2)))) return true;
  // SNP is of leaves, with SC only.
  if (bit(value, 11n) && !(f.SC && (level === 1 || large))) return true;
  return large && !zero(value, 12n + 9n * BigInt(level - 1) - 1n, 12n);
}
