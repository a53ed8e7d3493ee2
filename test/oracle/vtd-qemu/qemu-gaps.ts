/**
 * Where QEMU's intel-iommu is known to leave the specification: each with a name and the reason. Reasons of faults that it tells by others are a table; most
 * of the rest are told as the world that QEMU takes the given one for: its answer must then be one that the specification permits in that world. The last tell
 * by what lay on the way, and then nothing of the answer is compared. A disagreement that none explains is a finding.
 */
import { type Memory, word } from "../memory.ts";
import { bits, type Identification, type Programming } from "../vtd/capabilities.ts";
import type { Request } from "../vtd/outcome.ts";
import type { Seen } from "./machine.ts";
import type { Allowed, Read } from "./walked-tables.ts";

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
  readonly identification?: Partial<Identification>;
  readonly RTADDR?: bigint;
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

/** Fault reasons that QEMU tells by others, for a read and for a write. */
interface WrongCode {
  readonly name: string;
  readonly why: string;
  readonly codes: ReadonlyMap<number, readonly [read: number, write: number]>;
}

const both = (code: number): readonly [number, number] => [code, code];

const WRONG_CODES: readonly WrongCode[] = [
  {
    name: "legacy codes of scalable root and context",
    why: "38h to 43h are told as those of legacy mode (§7.1.3, SRT and SCT)",
    codes: new Map([
      [0x38, both(0x08)],
      [0x39, both(0x01)],
      [0x3a, both(0x0a)],
      [0x40, both(0x09)],
      [0x41, both(0x02)],
      [0x42, both(0x0b)],
    ]),
  },
  {
    name: "legacy codes of the second stage",
    why: "SSS and SGN of a second stage in scalable mode are told as those of legacy mode, absent entries as a missing right (§7.1.3)",
    codes: new Map([
      [0x78, both(0x07)],
      [0x79, [0x06, 0x05]],
      [0x7a, both(0x0c)],
      [0x7b, both(0x03)],
      [0x84, both(0x04)],
      [0x85, both(0x05)],
      [0x86, both(0x06)],
    ]),
  },
  {
    name: "interrupt range by what the unit has",
    why: "in legacy mode a unit with scalable mode tells SGN.8 (§7.1.3: LGN.4)",
    codes: new Map([[0x0e, both(0x87)]]),
  },
];

function codeOf([, high]: readonly [bigint, bigint]): number {
  return Number((high >> 32n) & 0xffn);
}

/** The name of the codes that are all that sets the record apart from one that is permitted; null: more does, or nothing. */
export function wrongCodeOf({ allowed, request }: Pick<Case, "allowed" | "request">, { records }: Seen): string | null {
  if (records.length !== 1) return null;
  const seen = records[0]!;
  for (const { outcome } of allowed) {
    const { record } = outcome;
    if (record === null) continue;
    const [low, high] = record.quadwords;
    const apart = (high ^ seen[1]) & ~record.unknown[1] & ~(0xffn << 32n);
    if (apart !== 0n || ((low ^ seen[0]) & ~record.unknown[0]) !== 0n) continue;
    const told = request.access === "read" ? 0 : 1;
    const wrong = WRONG_CODES.find(({ codes }) => codes.get(codeOf(record.quadwords))?.[told] === codeOf(seen));
    if (wrong !== undefined) return wrong.name;
  }
  return null;
}

function readsOf({ allowed }: Case): readonly Read[] {
  return allowed[0]?.reads ?? [];
}

function last(met: Case, ...kinds: Read["tag"]["kind"][]): Read | undefined {
  return readsOf(met).findLast(({ tag, values }) => kinds.includes(tag.kind) && values !== null);
}

/** Quadwords of reads, changed. */
function changed(
  met: Case,
  kind: Read["tag"]["kind"],
  quadword: number,
  change: (value: bigint) => bigint,
): Taken | null {
  const words: [bigint, bigint][] = [];
  for (const { tag, values, address } of readsOf(met)) {
    if (tag.kind !== kind || values === null) continue;
    const at = address + BigInt(quadword) * 8n;
    const value = change(values[quadword]!);
    if (value !== word(met.memory, at)) words.push([at, value]);
  }
  return words.length === 0 ? null : { words };
}

function expected({ allowed }: Case): number[] {
  return allowed.map(({ outcome: { record } }) => (record === null ? 0 : codeOf(record.quadwords)));
}

/** FPD of a structure on the way, from the context on. */
function suppressed(met: Case): boolean {
  const structures = ["context", "pasid-directory", "pasid-entry"];
  return readsOf(met).some(
    ({ tag, values }) => structures.includes(tag.kind) && bits(values?.[0] ?? 0n, 1n, 1n) === 1n,
  );
}

const told = ({ records }: Seen, code: number): boolean => records.length === 1 && codeOf(records[0]!) === code;

export const GAPS: readonly Gap[] = [
  {
    name: "flags without snooping",
    why: "A and D of the first stage are set though walks are not snooped: SMPWCS is 0, so PWSNP is too (§9.6; §7.1.3: 90h)",
    takes: (met) => {
      const taken = changed(met, "pasid-entry", 1, (value) => value | (1n << 23n));
      if (taken === null || last(met, "first-stage") === undefined) return null;
      return { ...taken, identification: { ECAP: met.identification.ECAP | (1n << 48n) } };
    },
  },
  {
    name: "canonical by AW",
    why: "which addresses are canonical is taken from AW, of the second stage, not from FSPM (§3.6; §9.6)",
    explains: (met, seen) => {
      const entry = last(met, "pasid-entry");
      if (entry === undefined || bits(entry.values![0]!, 8n, 6n) !== 1n) return false;
      if (!told(seen, 0x80) && !(seen.records.length === 0 && suppressed(met))) return false;
      const width = Number(30n + 9n * bits(entry.values![0]!, 4n, 2n));
      const { address } = met.request;
      return BigInt.asUintN(64, BigInt.asIntN(width, address)) !== address;
    },
  },
  {
    name: "reserved bits of PASID entries",
    why: "they are not looked at, nor the fields of what the unit has not (§9.6; §7.1.3: 5Ah)",
    takes: (met) => {
      const entry = last(met, "pasid-entry");
      if (entry === undefined) return null;
      const kept = usedBits(met.identification);
      const words = entry.values!.map((value, at): [bigint, bigint] => [
        entry.address + BigInt(at) * 8n,
        value & (kept[at] ?? 0n),
      ]);
      return words.every(([, value], at) => value === entry.values![at]) ? null : { words };
    },
  },
  {
    name: "pointers of PASID entries",
    why: "a table that they place beyond the HAW cannot be read: that is told, not the reserved bits (§9.6; §7.1.3: 5Ah)",
    explains: (met, seen) => {
      const entry = last(met, "pasid-entry");
      if (entry === undefined || !expected(met).includes(0x5a)) return false;
      const beyond = (quadword: number): boolean => entry.values![quadword]! >> met.identification.HAW !== 0n;
      const stage = bits(entry.values![0]!, 8n, 6n);
      return (stage === 2n && beyond(0) && told(seen, 0x03)) || (stage === 1n && beyond(2) && told(seen, 0x73));
    },
  },
  {
    name: "FPD of PASID structures",
    why: "what is wrong with them is told with the context, before their FPD is looked at (§7.2.2; §7.1.3: SPD.2, SPT.2 and SPT.4 are qualified)",
    explains: (met, seen) =>
      [0x51, 0x59, 0x5b].some((code) => told(seen, code)) && expected(met).includes(0) && suppressed(met),
  },
  {
    name: "both halves of a scalable root entry",
    why: "reserved bits of the half that is not the function's are told, too (§9.2: either half stands for itself; §7.1.3: LRT.3)",
    explains: (met, seen) => {
      const root = last(met, "root");
      if (root?.tag.kind !== "root" || !root.tag.scalable || !told(seen, 0x0a)) return false;
      const used = ((1n << met.identification.HAW) - 4096n) | 1n;
      return (word(met.memory, root.address ^ 8n) & ~used) !== 0n;
    },
  },
  {
    name: "table modes",
    why: "bit 11 of RTADDR is not looked at, and bit 10 by units with scalable mode only (§11.4.5; §7.1.3: 30h)",
    takes: ({ identification: { ECAP }, programming: { RTADDR } }) => {
      const known = RTADDR & ~(((ECAP >> 43n) & 1n) === 1n ? 1n << 11n : 3n << 10n);
      return known === RTADDR ? null : { RTADDR: known };
    },
  },
  {
    name: "large pages over the interrupt range",
    why: "a page that has the range in it is taken for the range, wherever in it the address leads (§3.14: that result in an address in the range)",
    explains: (met, seen) => {
      const leaf = last(met, "second-stage");
      if (leaf?.tag.kind !== "second-stage" || leaf.tag.level < 2 || !(told(seen, 0x0e) || told(seen, 0x87)))
        return false;
      const size = 1n << BigInt(3 + 9 * leaf.tag.level);
      const first = leaf.values![0]! & ((1n << met.identification.HAW) - size);
      return first <= 0xfeef_ffffn && first + size > 0xfee0_0000n;
    },
  },
  {
    name: "0Bh is not suppressed",
    why: "reserved bits of a context are recorded whatever its FPD says (§7.2.2; §7.1.3: LCT.3 and SCT.3 are qualified)",
    explains: (met, seen) =>
      told(seen, 0x0b) && expected(met).includes(0) && bits(last(met, "context")?.values?.[0] ?? 0n, 1n, 1n) === 1n,
  },
  {
    name: "reserved bits of directory entries",
    why: "they are not looked at (§9.5; §7.1.3: 52h)",
    takes: (met) =>
      changed(met, "pasid-directory", 0, (value) => value & (((1n << met.identification.HAW) - 4096n) | 3n)),
  },
  {
    name: "enables of what the unit has not",
    why: "DTE, PASIDE, PRE, RID_PASID and RID_PRIV of a context are not looked at (§9.4; §7.1.3: 42h or 43h)",
    takes: (met) => {
      const context = last(met, "context");
      if (context?.tag.kind !== "context" || !context.tag.scalable) return null;
      const services = changed(met, "context", 0, (value) => value & ~0x1cn);
      const ownPasid = changed(met, "context", 1, (value) => value & ~0x1f_ffffn);
      const words = [...(services?.words ?? []), ...(ownPasid?.words ?? [])];
      return words.length === 0 ? null : { words };
    },
  },
  {
    name: "rights level by level",
    why: "an entry without the right that is asked for ends the walk, whatever is wrong further down (§3.6.1: whether there is a valid translation comes first)",
    explains: (met, seen) => {
      if (seen.records.length !== 1 || ![0x05, 0x06, 0x81, 0x85].includes(codeOf(seen.records[0]!))) return false;
      const write = met.request.access !== "read";
      return readsOf(met).some(({ tag, values }) => {
        if (values === null) return false;
        if (tag.kind === "second-stage") return bits(values[0]!, write ? 1n : 0n, write ? 1n : 0n) === 0n;
        return tag.kind === "first-stage" && (values[0]! & 6n) !== 6n;
      });
    },
  },
  {
    name: "SNP of what the unit has not",
    why: "units with scalable mode do not look at it, also without SC (§9.8: reserved then; §7.1.3: 0Ch, 7Ah)",
    takes: (met) => {
      const { ECAP } = met.identification;
      if (bits(ECAP, 43n, 43n) === 0n || bits(ECAP, 7n, 7n) === 1n) return null;
      return changed(met, "second-stage", 0, (value) => value & ~(1n << 11n));
    },
  },
  {
    name: "pass-through",
    why: "devices that are passed through go past the unit: no fault for addresses beyond the HAW or in the interrupt range (§7.1.3: LGN.1, LGN.4, SGN.4, SGN.8)",
    explains: (met, { records }) =>
      records.length === 0 &&
      expected(met).some((code) => [0x04, 0x0e, 0x83, 0x87].includes(code)) &&
      passesThrough(met),
  },
];

function passesThrough(met: Case): boolean {
  const entry = last(met, "pasid-entry");
  if (entry !== undefined) return bits(entry.values![0]!, 8n, 6n) === 4n;
  const context = last(met, "context");
  return context?.tag.kind === "context" && !context.tag.scalable && bits(context.values![0]!, 3n, 2n) === 2n;
}

/** Bits of a PASID entry's quadwords that are not reserved (§9.6), of units without memory types. */
function usedBits({ ECAP, HAW }: Identification): readonly bigint[] {
  const pointer = (1n << HAW) - 4096n;
  const has = (at: bigint, mask: bigint) => (((ECAP >> at) & 1n) === 1n ? mask : 0n);
  return [
    0x1c3n | has(46n, pointer | (7n << 2n)) | has(45n, 1n << 9n),
    0xffffn | has(48n, 1n << 23n) | has(7n, 1n << 24n),
    (3n << 5n) | has(31n, 1n) | has(34n, 1n << 7n) | has(47n, pointer | (3n << 2n) | (1n << 4n)),
  ];
}
