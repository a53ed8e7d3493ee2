/**
 * Small, wholly valid machines for hand-made cases: one device, tables that a reader can follow in the head. A case starts from a scene and spoils one thing.
 *
 * Physical pages: 0x100 root table · 0x101 context table · 0x102 PASID directory · 0x103 PASID table · 0x200–0x204 first stage, from the fifth level down ·
 * 0x300–0x304 second stage likewise · 0x305, 0x306 the second stage's leaves for the pages of the first and for the data · 0x400 interrupt remapping table.
 * The address 0x80_4020_1abc has the index 1 at levels 4 to 1, and 0 at level 5. Second-stage tables map the first stage's pages to themselves.
 */
import { emptyMemory, type Memory, word } from "../../memory.ts";
import type { Identification, Programming } from "../capabilities.ts";
import type { Request } from "../outcome.ts";

/** Bus 1, device 2, function 3: devfn 0x13. */
export const SID = 0x0113n;
export const ADDRESS = 0x80_4020_1abcn;
/** Page that a stage by itself gives, or the first of two; and the page that the second gives for it. */
export const GUEST_PAGE = 0x60_0000n;
export const PAGE = 0x70_0000n;
export const DID = 7n;
/** A PASID with the same entry as RID_PASID's 0. */
export const PASID = 0x45n;

export const ROOT_TABLE = 0x10_0000n;
export const ROOT = ROOT_TABLE + 1n * 16n;
export const LEGACY_CONTEXT = 0x10_1000n + 0x13n * 16n;
export const CONTEXT = 0x10_1000n + 0x13n * 32n;
/** Directory entries of PASIDs 0 to 63, and of 64 to 127. */
export const DIRECTORY = 0x10_2000n;
export const DIRECTORY_1 = DIRECTORY + 8n;
export const ENTRY = 0x10_3000n;
/** PASID 0x45 is the entry 5 of the second table, which is the same page. */
export const ENTRY_PASID = ENTRY + 5n * 64n;
/** Entries of the walk of ADDRESS by level; [0] is not there. */
export const FIRST = [0n, 0x20_4008n, 0x20_3008n, 0x20_2008n, 0x20_1008n, 0x20_0000n] as const;
export const SECOND = [0n, 0x30_4008n, 0x30_3008n, 0x30_2008n, 0x30_1008n, 0x30_0000n] as const;
/** Second-stage leaves of the nested scene: of the first stage's table of a level, and of GUEST_PAGE. */
export const leafOfTable = (level: number): bigint => 0x30_5000n + (0x205n - BigInt(level)) * 8n - 0x200n * 8n;
export const LEAF_OF_DATA = 0x30_6000n;
/** Second-stage entries above those, by level: of the pages of the first stage and of the data. */
export const SECOND_ABOVE = { 4: 0x30_1000n, 3: 0x30_2000n, tables: 0x30_3000n + 8n, data: 0x30_3000n + 24n } as const;
export const IRT = 0x40_0000n;

/** Entry bits. */
export const FS = {
  P: 1n,
  RW: 2n,
  US: 4n,
  A: 1n << 5n,
  D: 1n << 6n,
  PS: 1n << 7n,
  G: 1n << 8n,
  EA: 1n << 10n,
} as const;
export const SS = {
  R: 1n,
  W: 2n,
  X: 4n,
  PS: 1n << 7n,
  A: 1n << 8n,
  D: 1n << 9n,
  SNP: 1n << 11n,
  TM: 1n << 62n,
} as const;
export const FS_ALL = FS.P | FS.RW | FS.US;
export const SS_ALL = SS.R | SS.W;
/** PGTT values in place. */
export const PGTT = { FIRST: 1n << 6n, SECOND: 2n << 6n, NESTED: 3n << 6n, PASS: 4n << 6n } as const;
export const AW48 = 2n << 2n;
export const SSADE = 1n << 9n;
export const PWSNP = 1n << 23n;
export const Q2 = { SRE: 1n, FIVE: 1n << 2n, WPE: 1n << 4n, EAFE: 1n << 7n } as const;
export const CONTEXT_BITS = {
  DTE: 1n << 2n,
  PASIDE: 1n << 3n,
  PRE: 1n << 4n,
  PDTS: (value: bigint) => value << 9n,
} as const;
export const TTM_SCALABLE = 1n << 10n;
const FPD = 2n;

export { FPD };

/** CAP: 64 K domains, widths 39, 48 and 57, MGAW 57, 2 MiB and 1 GiB pages of both stages, five levels. */
export const CAP =
  6n |
  (0b1110n << 8n) |
  (56n << 16n) |
  (0x22n << 24n) |
  (3n << 34n) |
  (1n << 39n) |
  (18n << 48n) |
  (1n << 56n) |
  (1n << 60n);
/** ECAP: C QI DT IR EIM PT SC · NEST PRS SRS EAFS PSS=19 PASID · SMTS SSADS SSTS FSTS SMPWCS RPS RPRIVS. */
export const ECAP =
  0b1101_1111n |
  (0x40n << 8n) |
  (1n << 26n) |
  (1n << 29n) |
  (1n << 31n) |
  (1n << 34n) |
  (19n << 35n) |
  (1n << 40n) |
  (1n << 43n) |
  (0b11111n << 45n) |
  (1n << 53n);
export const EVERYTHING: Identification = { VER: 0x60n, CAP, ECAP, HAW: 46n };

export class Scene {
  identification: Identification = EVERYTHING;
  programming: Programming = { TES: true, IRES: false, CFIS: false, RTADDR: ROOT_TABLE, IRTA: 0n };
  readonly memory: Memory = emptyMemory();

  put(address: bigint, ...values: bigint[]): this {
    values.forEach((value, index) => {
      const at = address + BigInt(index) * 8n;
      this.memory.pages.add(at >> 12n);
      this.memory.words.set(at, value);
    });
    return this;
  }

  change(address: bigint, to: (before: bigint) => bigint): this {
    return this.put(address, to(word(this.memory, address)));
  }

  set(address: bigint, mask: bigint): this {
    return this.change(address, (before) => before | mask);
  }

  clear(address: bigint, mask: bigint): this {
    return this.change(address, (before) => before & ~mask);
  }

  /** Nothing answers at the quadword. */
  fail(address: bigint): this {
    this.memory.injected.set(address, "access");
    return this;
  }

  /** Stores at the quadword are refused. */
  readOnly(address: bigint): this {
    this.memory.injected.set(address, "read-only");
    return this;
  }

  identify(change: Partial<Identification>): this {
    this.identification = { ...this.identification, ...change };
    return this;
  }

  /** Capability bits away. */
  without(caps: { readonly CAP?: bigint; readonly ECAP?: bigint }): this {
    const { CAP, ECAP } = this.identification;
    return this.identify({ CAP: CAP & ~(caps.CAP ?? 0n), ECAP: ECAP & ~(caps.ECAP ?? 0n) });
  }

  program(change: Partial<Programming>): this {
    this.programming = { ...this.programming, ...change };
    return this;
  }
}

/** Second-stage tables of 4 levels for ADDRESS. */
function secondStage(scene: Scene): Scene {
  for (let level = 4; level > 1; level--) scene.put(SECOND[level]!, (SECOND[level - 1]! & ~0xfffn) | SS_ALL);
  return scene.put(SECOND[1], PAGE | SS_ALL);
}

/** Legacy mode, TT=0. */
export function legacyScene(): Scene {
  const scene = new Scene().put(ROOT, 0x10_1000n | 1n, 0n);
  return secondStage(scene).put(LEGACY_CONTEXT, 0x30_1000n | 1n, 2n | (DID << 8n));
}

export const withTT = (TT: bigint) => () => legacyScene().set(LEGACY_CONTEXT, TT << 2n);

/** Scalable mode; both PASID entries are of the quadwords given. */
function scalable(q0: bigint, q1: bigint, q2: bigint): Scene {
  const scene = new Scene().program({ RTADDR: ROOT_TABLE | TTM_SCALABLE });
  scene.put(ROOT, 0x10_1000n | 1n, 0n);
  scene.put(CONTEXT, 0x10_2000n | CONTEXT_BITS.DTE | CONTEXT_BITS.PASIDE | 1n, 0n, 0n, 0n);
  scene.put(DIRECTORY, ENTRY | 1n).put(DIRECTORY_1, ENTRY | 1n);
  for (const at of [ENTRY, ENTRY_PASID]) scene.put(at, q0, q1, q2, 0n, 0n, 0n, 0n, 0n);
  return scene;
}

function firstStageTables(scene: Scene): Scene {
  for (let level = 5; level > 1; level--) scene.put(FIRST[level]!, (FIRST[level - 1]! & ~0xfffn) | FS_ALL | FS.A);
  return scene.put(FIRST[1], GUEST_PAGE | FS_ALL | FS.A | FS.D);
}

/** PGTT=1, 4 levels; flags are set. */
export function firstScene(): Scene {
  return firstStageTables(scalable(1n | PGTT.FIRST, DID | PWSNP, 0x20_1000n));
}

export function secondScene(): Scene {
  return secondStage(scalable(1n | PGTT.SECOND | AW48 | 0x30_1000n, DID | PWSNP, 0n));
}

export function nestedScene(): Scene {
  const scene = firstStageTables(scalable(1n | PGTT.NESTED | AW48 | 0x30_1000n, DID | PWSNP, 0x20_1000n));
  scene.put(SECOND_ABOVE[4], 0x30_2000n | SS_ALL);
  scene.put(SECOND_ABOVE[3], 0x30_3000n | SS_ALL);
  // The pages of the first stage lie from 0x20_0000 (index 1), the data at 0x60_0000 (index 3).
  scene.put(SECOND_ABOVE.tables, 0x30_5000n | SS_ALL);
  scene.put(SECOND_ABOVE.data, 0x30_6000n | SS_ALL);
  for (let level = 1; level <= 5; level++) scene.put(leafOfTable(level), (FIRST[level]! & ~0xfffn) | SS_ALL);
  return scene.put(LEAF_OF_DATA, PAGE | SS_ALL);
}

export function passScene(): Scene {
  return scalable(1n | PGTT.PASS, DID, 0n);
}

/** Changes the quadword of both PASID entries. */
export function entryBits(scene: Scene, quadword: number, set: bigint, clear = 0n): Scene {
  for (const at of [ENTRY, ENTRY_PASID]) scene.change(at + BigInt(quadword) * 8n, (before) => (before & ~clear) | set);
  return scene;
}

export function request(change: Partial<Request> = {}): Request {
  return {
    kind: "untranslated",
    sid: SID,
    pasid: null,
    privileged: false,
    access: "read",
    address: ADDRESS,
    ...change,
  };
}
