/**
 * Where QEMU's SMMUv3 is known to leave the specification: each with a name and the reason. Most are told as the world that QEMU takes the given one for: its
 * answer must then be one that the specification permits in that world. The rest tell by what lay on the way, and then nothing of the answer is compared. A
 * disagreement that none explains is a finding.
 */
import { copyMemory, type Memory, word } from "../memory.ts";
import { addressBits, bit, bits, type Identification, type Programming } from "../smmuv3/identification.ts";
import { EVENT, type Request } from "../smmuv3/outcome.ts";
import type { Seen } from "./machine.ts";
import { type Allowed, allowed, type Read } from "./walked-tables.ts";

/** What a request met. */
export interface Case {
  readonly identification: Identification;
  readonly request: Request;
  readonly programming: Programming;
  readonly memory: Memory;
  readonly allowed: readonly Allowed[];
}

/** A world that QEMU takes the given one for. */
export interface Taken {
  readonly programming?: Programming;
  readonly words?: readonly (readonly [bigint, bigint])[];
}

export interface Gap {
  readonly name: string;
  /** What QEMU does instead, and the section it leaves. */
  readonly why: string;
  /** The world that QEMU takes it for; null: it takes it for what it is. */
  readonly takes?: (met: Case) => Taken | null;
  readonly explains?: (met: Case, seen: Seen) => boolean;
}

/** Bits of event records that QEMU gets wrong. */
interface WrongBits {
  readonly name: string;
  readonly why: string;
  /** Whether a record that is permitted comes out so. */
  readonly of: (permitted: readonly bigint[], seen: readonly bigint[]) => boolean;
  /** Doubleword, and bits of it. */
  readonly bits: readonly [number, bigint];
}

/** Of QEMU's SMMUv3, and so its IAS (§3.4). */
const OAS = 44n;
const S2 = 1n << 39n;
const RnW = 1n << 35n;
const CLASS_TT = 1n;
const CLASS_IN = 2n;

function eventOf([first]: readonly bigint[]): number {
  return Number(first! & 0xffn);
}

function isTranslationFault(record: readonly bigint[]): boolean {
  const number = eventOf(record);
  return number >= EVENT.F_TRANSLATION && number <= EVENT.F_PERMISSION;
}

const WRONG_BITS: readonly WrongBits[] = [
  {
    name: "IPA with its low bits",
    why: "bits 11:0 of the last doubleword of a stage-2 fault's record are not 0 (§7.3.13 to §7.3.16)",
    of: (permitted) => isTranslationFault(permitted) && (permitted[1]! & S2) !== 0n,
    bits: [3, 0xfffn],
  },
  {
    name: "RnW of the fetch",
    why: "a stage-2 fault with CLASS = CD or TT says RnW = 1, of the fetch; §7.3.13 wants the transaction's (TTRnW is the fetch's)",
    of: (permitted) =>
      (isTranslationFault(permitted) || eventOf(permitted) === EVENT.F_WALK_EABT) &&
      (permitted[1]! & S2) !== 0n &&
      bits(permitted[1]!, 41n, 40n) !== CLASS_IN,
    bits: [1, RnW],
  },
  {
    name: "no IPA from a cached entry",
    why: "a stage-2 F_PERMISSION that a cached entry gives has IPA = 0 (§7.3.16)",
    of: (permitted, seen) => eventOf(permitted) === EVENT.F_PERMISSION && (permitted[1]! & S2) !== 0n && seen[3] === 0n,
    bits: [3, 0xff_ffff_ffff_f000n],
  },
];

/** Names of the wrong bits that are all that sets the record apart from one that is permitted; null: more does. */
export function wrongBitsOf({ allowed }: Pick<Case, "allowed">, { records }: Seen): string[] | null {
  if (records.length !== 1) return null;
  for (const { outcome } of allowed) {
    const { record } = outcome;
    if (record === null) continue;
    const left = record.doublewords.map((value, at) => (value ^ records[0]![at]!) & ~record.unknown[at]!);
    const names: string[] = [];
    for (const {
      name,
      of,
      bits: [at, mask],
    } of WRONG_BITS) {
      if (!of(record.doublewords, records[0]!) || (left[at]! & mask) === 0n) continue;
      left[at]! &= ~mask;
      names.push(name);
    }
    if (names.length > 0 && left.every((value) => value === 0n)) return names;
  }
  return null;
}

/** Number of the record that is permitted; null without one, or if more is permitted. */
function expectedEvent({ allowed }: Pick<Case, "allowed">): number | null {
  const numbers = new Set(
    allowed.map(({ outcome }) => (outcome.record === null ? null : eventOf(outcome.record.doublewords))),
  );
  return numbers.size === 1 ? [...numbers][0]! : null;
}

function readsOf({ allowed }: Case): readonly Read[] {
  return allowed[0]?.reads ?? [];
}

function last(met: Case, ...kinds: Read["tag"]["kind"][]): Read | undefined {
  return readsOf(met).findLast(({ tag, values }) => kinds.includes(tag.kind) && values !== null);
}

/** STE.Config; 0 without an entry. */
function configOf(met: Case): bigint {
  return bits(last(met, "STE")?.values?.[0] ?? 0n, 3n, 1n);
}

function isEvent(records: Seen["records"], event: number): boolean {
  return records.length === 1 && eventOf(records[0]!) === event;
}

/**
 * Name of what QEMU does with the rights of cached entries (§3.17 keeps them with the entry), if that is what was seen; null: it is not. `writable`: places
 * that a write might reach.
 */
export function wrongByCachedEntry(
  { request, allowed }: Pick<Case, "request" | "allowed">,
  { records, arrived }: Seen,
  writable: readonly bigint[],
  stage2Only: boolean,
): string | null {
  const refused = allowed.some(
    ({ outcome: { record } }) => record !== null && eventOf(record.doublewords) === EVENT.F_PERMISSION,
  );
  if (!refused || records.length !== 0) return null;
  // One of stage 2 alone refuses, but a write as stage 1, whose CD.R there is not, and a read not in the SMMU at all: no record.
  if (stage2Only && arrived === null) return "no record from a cached entry of stage 2 alone";
  // Another is asked only for its right to write: what may only be written is read.
  return !request.write && arrived !== null && writable.includes(arrived) ? "reading by a cached entry" : null;
}

/** Whether stage 2 of the stream has no translation for reading at `ipa`. */
function stage2Refuses(met: Case, ipa: bigint): boolean {
  const { identification, programming, memory, request } = met;
  const ste = last(met, "STE")!;
  const alone = copyMemory(memory);
  alone.words.set(ste.address, (ste.values![0]! & ~0b1110n) | (6n << 1n));
  const answers = allowed(identification, programming, alone, { ...request, iova: ipa, write: false });
  return answers?.every(({ outcome: { result } }) => result.kind !== "translated") ?? false;
}

/** Doublewords of reads, changed. */
function changed(met: Case, kind: Read["tag"]["kind"], change: (value: bigint, read: Read) => bigint): Taken | null {
  const words: [bigint, bigint][] = [];
  for (const read of readsOf(met)) {
    if (read.tag.kind !== kind || read.values === null) continue;
    const value = change(read.values[0]!, read);
    if (value !== word(met.memory, read.address)) words.push([read.address, value]);
  }
  return words.length === 0 ? null : { words };
}

function isTable(value: bigint, { tag }: Read): boolean {
  return "level" in tag && tag.level < 3 && bit(value, 1n);
}

export const GAPS: readonly Gap[] = [
  {
    name: "no privilege",
    why: "AP[1] and APTable[0] are not looked at: what EL0 may not access is accessible (Arm ARM, stage-1 permissions)",
    takes: (met) =>
      changed(met, "stage-1", (value, read) => (isTable(value, read) ? value & ~(1n << 61n) : value | (1n << 6n))),
  },
  {
    name: "TBI1 is TBI0",
    why: "the upper half takes TBI0 for TBI1 (§5.4, TBI)",
    takes: (met) =>
      bit(met.request.iova, 55n)
        ? changed(met, "CD", (value) => (value & ~(1n << 39n)) | (bit(value, 38n) ? 1n << 39n : 0n))
        : null,
  },
  {
    name: "RECINVSID",
    why: "C_BAD_STREAMID is recorded whatever CR2.RECINVSID says (§6.3.12)",
    takes: (met) =>
      bit(met.programming.CR2, 1n) || last(met, "STE") !== undefined
        ? null
        : { programming: { ...met.programming, CR2: met.programming.CR2 | 2n } },
  },
  {
    name: "S2PTW",
    why: "a table walk through Device memory is no stage-2 F_PERMISSION (§5.2, S2PTW)",
    takes: (met) => {
      const ste = last(met, "STE");
      if (ste === undefined || !bit(ste.values![2]!, 54n)) return null;
      return { words: [[ste.address + 16n, ste.values![2]! & ~(1n << 54n)]] };
    },
  },
  {
    name: "S2HA and S2HD",
    why: "they are not looked at; without HTTU they are ILLEGAL (§5.2.2)",
    takes: (met) => {
      const ste = last(met, "STE");
      if (ste === undefined || configOf(met) < 6n || bits(ste.values![2]!, 56n, 55n) === 0n) return null;
      return { words: [[ste.address + 16n, ste.values![2]! & ~(3n << 55n)]] };
    },
  },
  {
    name: "size of a bypassed stage 1",
    why: "where stage 1 is bypassed an address beyond the IAS passes (Config = 100) or aborts without a record (§3.4, §7.3.14: F_ADDR_SIZE)",
    explains: (met, { records }) =>
      met.request.iova >> OAS !== 0n &&
      records.length === 0 &&
      met.allowed.some(
        ({ outcome: { record } }) => record !== null && eventOf(record.doublewords) === EVENT.F_ADDR_SIZE,
      ) &&
      [4n, 6n].includes(configOf(met)),
  },
  {
    name: "S1ContextPtr beyond the IAS",
    why: "with stage 2 no record at all, without it F_CD_FETCH, instead of C_BAD_STE (§3.4.3)",
    explains: (met, { records }) => {
      const ste = last(met, "STE");
      if (ste === undefined || !bit(configOf(met), 0n) || (bits(ste.values![0]!, 55n, 6n) << 6n) >> OAS === 0n)
        return false;
      return configOf(met) === 7n ? records.length === 0 : isEvent(records, EVENT.F_CD_FETCH);
    },
  },
  {
    name: "FetchAddr of F_CD_FETCH",
    why: "it stands in doubleword 2, not 3 (§7.3.10)",
    explains: (met, { records }) =>
      isEvent(records, EVENT.F_CD_FETCH) &&
      met.allowed.some(
        ({ outcome: { record } }) =>
          record !== null &&
          eventOf(record.doublewords) === EVENT.F_CD_FETCH &&
          record.doublewords[3] === records[0]![2],
      ),
  },
  {
    name: "tables side by side",
    why: "of concatenated tables at the start of stage 2 only the first is walked (Arm ARM, concatenated tables; §5.2, S2SL0)",
    explains: (met) => {
      const start = readsOf(met).find(({ tag }) => tag.kind === "stage-2");
      if (start?.tag.kind !== "stage-2") return false;
      const { granule, level } = start.tag;
      const whole = granule + (granule - 3n) * BigInt(4 - level);
      return readsOf(met).some(({ tag }) => tag.kind === "stage-2" && tag.ipa >> whole !== 0n);
    },
  },
  {
    name: "a table is translated once",
    why: "stage 2 translates the base of a stage-1 table, of both TTBx already when the context is read, not each descriptor's address (§3.3.3)",
    explains: (met, { records }) => {
      const cd = last(met, "CD");
      if (configOf(met) !== 7n || cd === undefined) return false;
      const first = readsOf(met).find(({ tag }) => tag.kind === "stage-1");
      const walks = readsOf(met).filter(({ tag }) => tag.kind === "stage-2" && tag.under !== null && !tag.final);
      // Tables of several stage-2 pages, and descriptors that are not in the first.
      const whole = first === undefined || !("granule" in first.tag) ? 16n : first.tag.granule;
      const beyond = walks.some(
        ({ tag }) => tag.kind === "stage-2" && (tag.ipa & ((1n << whole) - 1n)) >> tag.granule !== 0n,
      );
      if (beyond) return true;
      // The other base faults, which S2R = 0 keeps silent.
      const [record] = records;
      if (record === undefined && !bit(last(met, "STE")!.values![2]!, 58n))
        return [1, 2].some((at) => stage2Refuses(met, bits(cd.values![at]!, 55n, 4n) << 4n));
      if (record === undefined || (record[1]! & S2) === 0n || bits(record[1]!, 41n, 40n) !== CLASS_TT) return false;
      return [1, 2].some((at) => bits(cd.values![at]!, 47n, 12n) === bits(record[3]!, 47n, 12n));
    },
  },
  {
    name: "stage-2 fault of a table walk",
    why: "S2 = 0 in its record, and CD.R instead of S2R decides whether there is one (§7.3.13, §5.5)",
    explains: (met, { records }) => {
      const read = readsOf(met).at(-1);
      const cd = last(met, "CD");
      if (read === undefined || cd === undefined) return false;
      const inTable = read.tag.kind === "stage-2" && read.tag.under !== null && !read.tag.final;
      // The address of the table is none that stage 2 has.
      const beyond = read.tag.kind === "stage-1" && isTable(read.values?.[0] ?? 0n, read);
      if (!inTable && !beyond) return false;
      if (!bit(cd.values![0]!, 45n)) return records.length === 0;
      return records.length === 1 && (records[0]![1]! & S2) === 0n && bits(records[0]![1]!, 41n, 40n) === CLASS_TT;
    },
  },
  {
    name: "F_ADDR_SIZE last",
    why: "a leaf's output size is checked after its access flag and rights (§7.3.22: before them)",
    explains: (met, { records }) =>
      expectedEvent(met) === EVENT.F_ADDR_SIZE &&
      (isEvent(records, EVENT.F_ACCESS) || isEvent(records, EVENT.F_PERMISSION)),
  },
  {
    name: "S2T0SZ by S2PS",
    why: "C_BAD_STE for an S2T0SZ below 64 minus S2PS; its least value is 64 minus the IAS, which is the OAS (§5.2, S2T0SZ; §3.4)",
    explains: (met, { records }) => {
      const ste = last(met, "STE");
      if (ste === undefined || configOf(met) < 6n || !isEvent(records, EVENT.C_BAD_STE)) return false;
      const size = addressBits(bits(ste.values![2]!, 50n, 48n));
      return bits(ste.values![2]!, 37n, 32n) < 64n - (size < OAS ? size : OAS);
    },
  },
  {
    name: "start level with nothing to resolve",
    why: "S2SL0 of a level whose tables are left no bit of S2T0SZ is accepted; it is ILLEGAL (§5.2, S2SL0; Arm ARM, VTCR_EL2)",
    explains: (met) => {
      const ste = last(met, "STE");
      if (ste === undefined || configOf(met) < 6n || expectedEvent(met) !== EVENT.C_BAD_STE) return false;
      const dw2 = ste.values![2]!;
      const granule = [12n, 16n, 14n, 0n][Number(bits(dw2, 47n, 46n))]!;
      const level = (granule === 12n ? 2n : 3n) - bits(dw2, 39n, 38n);
      return 64n - bits(dw2, 37n, 32n) <= granule + (granule - 3n) * (3n - level);
    },
  },
  {
    name: "address of a table",
    why: "a table descriptor's output is not checked against IPS or S2PS (§7.3.14: F_ADDR_SIZE)",
    explains: (met) => {
      const read = last(met, "stage-1", "stage-2");
      return expectedEvent(met) === EVENT.F_ADDR_SIZE && read !== undefined && isTable(read.values![0]!, read);
    },
  },
  {
    name: "IGNORED fields of stage 1",
    why: "C_BAD_STE for S1CDMax other than 0, IGNORED while IDR1.SSIDSIZE is 0, and for S1STALLD without stage 1 (§5.2)",
    explains: (met, { records }) => {
      const ste = last(met, "STE");
      if (ste === undefined || !isEvent(records, EVENT.C_BAD_STE)) return false;
      return bits(ste.values![0]!, 63n, 59n) !== 0n || (!bit(configOf(met), 0n) && bit(ste.values![1]!, 27n));
    },
  },
  {
    name: "blocks at any level",
    why: "a block is a leaf at level 0 of 4K tables and at levels 0 and 1 of 16K and 64K ones, not an invalid descriptor (Arm ARM)",
    explains: (met) => {
      const read = last(met, "stage-1", "stage-2");
      if (read === undefined || !("level" in read.tag) || bits(read.values![0]!, 1n, 0n) !== 1n) return false;
      return read.tag.level < (read.tag.granule === 12n ? 1 : 2);
    },
  },
  {
    name: "APTable at the table",
    why: "a write below a table with APTable[1] is F_PERMISSION at once, before what lies below is looked at (§7.3.22: order)",
    explains: (met, { records }) =>
      met.request.write &&
      isEvent(records, EVENT.F_PERMISSION) &&
      (records[0]![1]! & S2) === 0n &&
      readsOf(met).some(
        (read) =>
          read.tag.kind === "stage-1" &&
          read.values !== null &&
          isTable(read.values[0]!, read) &&
          bit(read.values[0]!, 62n),
      ),
  },
  {
    name: "twice the level-2 stream table",
    why: "an array of 2^Span entries instead of 2^(Span-1); C_BAD_STE beyond it instead of C_BAD_STREAMID (§5.1.2)",
    explains: (met) => {
      const descriptor = last(met, "L1STD");
      return (
        expectedEvent(met) === EVENT.C_BAD_STREAMID &&
        descriptor !== undefined &&
        bits(descriptor.values![0]!, 4n, 0n) !== 0n
      );
    },
  },
];
