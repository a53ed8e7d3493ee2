/**
 * First-stage translation (§3.6, §9.7), by itself and with every access of its own through a second stage (§3.8): canonical addresses, entries, rights, and
 * the accessed, extended-accessed and dirty flags.
 */
import type { Choose } from "../latitude.ts";
import { bit, bits, type Features, zero } from "./capabilities.ts";
import { Fault } from "./outcome.ts";
import type { PasidEntry } from "./pasid-entry.ts";
import { type Rights, SCALABLE, type SecondStage, type SecondStageLeaf, secondStage } from "./second-stage.ts";
import type { Tables } from "./tables.ts";

export interface FirstStage {
  readonly f: Features;
  readonly tables: Tables;
  readonly choose: Choose;
  readonly entry: PasidEntry;
  readonly pasid: bigint;
  /** The request is a supervisor's. */
  readonly supervisor: boolean;
  /** Null: entries and outputs are host-physical. */
  readonly second: SecondStage | null;
}

export interface FirstStageLeaf {
  readonly address: bigint;
  readonly rights: Rights & { readonly user: boolean };
  readonly span: bigint;
  /** Sets what the walk owes: A of the leaf, D with `write`. Throws if a flag cannot be set. */
  readonly finish: (write: boolean) => void;
}

const A = 1n << 5n;
const D = 1n << 6n;
const EA = 1n << 10n;

export function firstStage(stage: FirstStage, input: bigint): FirstStageLeaf {
  const { f, tables, choose, entry, pasid } = stage;
  const width = entry.firstLevels === 5 ? 57n : 48n;
  if (BigInt.asUintN(64, BigInt.asIntN(Number(width), input)) !== input) throw new Fault(0x80);
  const flags = entry.EAFE ? A | EA : A;
  let table = tables.startOfWalk("first-stage", entry.DID, pasid, entry.FSPTPTR);
  let rights = { r: true, w: true, user: true };
  let owed: Fault | null = null;
  const refuse = (fault: Fault) => {
    if (choose(2, "§3.6.3: when a flag that cannot be set is told") === 0) throw fault;
    owed ??= fault;
  };
  /** Sets flags of an entry, which must be written through the second stage where there is one. */
  const set = (at: bigint, value: bigint, mask: bigint, dirty: boolean, page: SecondStageLeaf | null) => {
    if ((value & mask) === mask) return;
    if (page !== null && !page.rights.w) return refuse(new Fault(0x77));
    // Neither walk is snooped then: whose flag is told first, no source says.
    if (!entry.PWSNP && choose(2, "§3.8: 90h, or 7Ch of the page") === 0) return refuse(new Fault(0x90));
    page?.finish("update");
    if (!entry.PWSNP) return refuse(new Fault(0x90));
    if (!tables.update({ address: at, mask, required: true, dirty }, value)) refuse(new Fault(0x91));
  };
  for (let level = entry.firstLevels; ; level--) {
    const shift = 12n + 9n * BigInt(level - 1);
    const root = level === entry.firstLevels;
    const gpa = table + bits(input, shift + 8n, shift) * 8n;
    const page = stage.second === null ? null : entryPage(stage.second, gpa, root);
    const at = page?.address ?? gpa;
    const isLeaf = (value: bigint) => level === 1 || bit(value, 7n);
    const tag = { kind: "first-stage", did: entry.DID, pasid, address: input, level } as const;
    // Absent entries of the first stage are not cached, even with CM=1 (§6.1).
    const read = tables.load(at, 1, tag, ([value]) => ({
      cacheable: bit(value!, 0n) && !reserved(f, level, value!, () => 1),
      leaf: !bit(value!, 0n) || isLeaf(value!),
      span: 1n << shift,
      did: null,
    }));
    if (read === null) throw new Fault(root ? 0x73 : 0x70);
    const value = read[0]!;
    if (!bit(value, 0n)) throw new Fault(0x71);
    if (
      reserved(f, level, value, () => (stage.second === null ? 0 : choose(2, "§9.7: guest addresses beyond the HAW")))
    )
      throw new Fault(0x72);
    rights = { r: true, w: rights.w && bit(value, 1n), user: rights.user && bit(value, 2n) };
    if (!isLeaf(value)) {
      set(at, value, flags, false, page);
      table = bits(value, 51n, 12n) << 12n;
      continue;
    }
    const span = 1n << shift;
    return {
      address: ((bits(value, 51n, 12n) << 12n) & ~(span - 1n)) | (input & (span - 1n)),
      rights: access(stage, rights),
      span,
      finish: (write) => {
        set(at, value, flags, false, page);
        if (write) set(at, value, D, true, page);
        if (owed !== null) throw owed;
      },
    };
  }
}

/** §3.6.2 (as its text stood when fetches could still be told from reads). */
function access({ entry, supervisor }: FirstStage, { w, user }: { w: boolean; user: boolean }) {
  if (supervisor) return { r: true, w: w || !entry.WPE, user: true };
  return { r: user, w: user && w, user };
}

/** Where the entry at a guest address lies (§3.8.2): what reads it needs the right to read. */
function entryPage(second: SecondStage, gpa: bigint, root: boolean): SecondStageLeaf {
  const noRead = root ? 0x75 : 0x76;
  const page = secondStage(second, { ...SCALABLE, tooWide: 0x74 }, gpa, noRead);
  if (!page.rights.r) throw new Fault(noRead);
  page.finish("none");
  return page;
}

/** `beyondHaw`: 0 if addresses beyond the host's are reserved. Bit 63 is ignored: no unit has ERS. */
function reserved(f: Features, level: number, value: bigint, beyondHaw: () => number): boolean {
  const large = level > 1 && bit(value, 7n);
  if (large && (level > 3 || (level === 3 && !f.FS1GP))) return true;
  // Bit 12 is PAT.
  if (large && !zero(value, 12n + 9n * BigInt(level - 1) - 1n, 13n)) return true;
  return !zero(value, 51n, f.HAW) && beyondHaw() === 0;
}
