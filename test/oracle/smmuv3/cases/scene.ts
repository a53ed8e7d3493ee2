/**
 * A small, wholly valid machine for hand-made cases: a linear stream table, one stream, tables of 4 KiB granules that a reader can follow in the head. A case
 * starts from a scene and spoils one thing.
 *
 * Physical pages: 0x100 stream table · 0x110 context descriptors · 0x200–0x203 stage 1, levels 0 to 3 · 0x300–0x301 stage 2, two tables side by side at
 * level 1 · 0x302 its level 2 · 0x303–0x305 its level 3. The VA 0x80_4020_1abc has the index 1 at every level. Stage 2 maps the pages of stage 1 and of the
 * context descriptors to themselves, and IPA 0x60_0000 to 0x70_0000.
 */
import { emptyMemory, type Memory, word } from "../../memory.ts";
import type { Identification, Programming } from "../identification.ts";
import type { Request } from "../outcome.ts";

export const SID = 5n;
export const VA = 0x80_4020_1abcn;
/** Page that stage 1 gives, and the one that stage 2 gives for it. */
export const IPA_PAGE = 0x60_0000n;
export const PA_PAGE = 0x70_0000n;
export const STREAM_TABLE = 0x10_0000n;
export const STE = STREAM_TABLE + SID * 64n;
export const CD = 0x11_0000n;
export const FIRST = { tables: [0x20_0008n, 0x20_1008n, 0x20_2008n], leaf: 0x20_3008n } as const;
export const SECOND = {
  root: 0x30_0000n,
  level2: 0x30_2000n,
  /** Entry for the pages of the context descriptors, of stage 1 (by level), of the data. */
  contexts: 0x30_4000n + 0x110n * 8n,
  stage1: [0x30_3000n, 0x30_3008n, 0x30_3010n, 0x30_3018n],
  leaf: 0x30_5000n,
} as const;

/** Descriptor bits. */
export const D = {
  VALID: 1n,
  TABLE: 3n,
  PAGE: 3n,
  EL0: 1n << 6n,
  READ_ONLY: 1n << 7n,
  S2R: 1n << 6n,
  S2W: 1n << 7n,
  AF: 1n << 10n,
  NG: 1n << 11n,
  DBM: 1n << 51n,
  PXN: 1n << 53n,
  UXN: 1n << 54n,
  /** Stage 2: Normal write-back. */
  NORMAL: 0xfn << 2n,
} as const;
/** Leaves that permit everything. */
export const LEAF1 = D.PAGE | D.EL0 | D.AF | D.NG;
export const LEAF2 = D.PAGE | D.S2R | D.S2W | D.AF | D.NORMAL;

/** Doubleword 0, 1, 2 of the stream table entry, and of the context descriptor. */
export const STE_BITS = {
  V: 1n,
  CONFIG: 7n << 1n,
  BYPASS: 0b100n << 1n,
  STAGE1: 0b101n << 1n,
  STAGE2: 0b110n << 1n,
  BOTH: 0b111n << 1n,
  S1CDMAX: (value: bigint) => value << 59n,
  S1FMT: (value: bigint) => value << 4n,
  EATS: (value: bigint) => value << 28n,
  INSTCFG: (value: bigint) => value << 50n,
  STRW: (value: bigint) => value << 30n,
  S1STALLD: 1n << 27n,
  S2AFFD: 1n << 53n,
  S2PTW: 1n << 54n,
  S2HD: 1n << 55n,
  S2HA: 1n << 56n,
  S2S: 1n << 57n,
  S2R: 1n << 58n,
} as const;
export const CD_BITS = {
  EPD0: 1n << 14n,
  EPD1: 1n << 30n,
  V: 1n << 31n,
  AFFD: 1n << 35n,
  WXN: 1n << 36n,
  TBI0: 1n << 38n,
  PAN: 1n << 40n,
  AA64: 1n << 41n,
  HD: 1n << 42n,
  HA: 1n << 43n,
  S: 1n << 44n,
  R: 1n << 45n,
  A: 1n << 46n,
} as const;

/** Everything the oracle covers, SMMUv3.4, 48-bit output addresses. */
export const EVERYTHING: Identification = {
  // S2P S1P TTF=2 COHACC HTTU=2 Hyp ATS ASID16 MSI SEV PRI VMID16 CD2L ATSRECERR ST_LEVEL=1; TTENDIAN, STALL_MODEL mixed
  IDR0:
    0b11n |
    (2n << 2n) |
    (1n << 4n) |
    (2n << 6n) |
    (0b0111011n << 9n) |
    (1n << 16n) |
    (3n << 18n) |
    (1n << 23n) |
    (1n << 27n),
  // SIDSIZE 16, SSIDSIZE 16, queues 2^8
  IDR1: 16n | (16n << 6n) | (8n << 11n) | (8n << 16n) | (8n << 21n),
  // HAD XNX FWB STT RIL BBML=2 E0PD PTWNNC EPAN
  IDR3: (1n << 2n) | (1n << 4n) | (1n << 8n) | (1n << 9n) | (1n << 10n) | (2n << 11n) | (3n << 13n) | (1n << 17n),
  // OAS 48, all granules, STALL_MAX 16
  IDR5: 5n | (7n << 4n) | (16n << 16n),
  AIDR: 4n,
};

export class Scene {
  identification: Identification = EVERYTHING;
  programming: Programming = {
    CR0: 0b1_0001n, // SMMUEN, ATSCHK
    CR2: 0b1010n, // RECINVSID, REC_CFG_ATS
    GBPA: 0n,
    STRTAB_BASE: STREAM_TABLE,
    STRTAB_BASE_CFG: 6n,
  };
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

  /** Nothing answers at the doubleword. */
  abort(address: bigint): this {
    this.memory.injected.set(address, "access");
    return this;
  }

  identify(change: Partial<Identification>): this {
    this.identification = { ...this.identification, ...change };
    return this;
  }

  program(change: Partial<Programming>): this {
    this.programming = { ...this.programming, ...change };
    return this;
  }
}

/** `config`: doubleword 0 without V; stage 1 from 16-bit T0SZ at level 0, stage 2 of 40 bits. */
function scene(config: bigint): Scene {
  const made = new Scene();
  made.put(STREAM_TABLE + 0xff8n, 0n); // the table's page is there
  const s2 = 24n | (1n << 6n) | (5n << 16n) | (1n << 19n) | (1n << 26n); // T0SZ, SL0, PS, AA64, R
  made.put(STE, STE_BITS.V | config | CD, 0n, 9n | (s2 << 32n), SECOND.root);
  made.put(
    CD,
    16n | CD_BITS.EPD1 | CD_BITS.V | (5n << 32n) | CD_BITS.AA64 | CD_BITS.R | CD_BITS.A | (7n << 48n),
    0x20_0000n,
  );
  made.put(FIRST.tables[0], 0x20_1000n | D.TABLE);
  made.put(FIRST.tables[1], 0x20_2000n | D.TABLE);
  made.put(FIRST.tables[2], 0x20_3000n | D.TABLE);
  made.put(FIRST.leaf, IPA_PAGE | LEAF1);
  made.put(SECOND.root, SECOND.level2 | D.TABLE);
  made.put(SECOND.root + 0x1ff8n, 0n);
  made.put(SECOND.level2, 0x30_4000n | D.TABLE, 0x30_3000n | D.TABLE, 0n, 0x30_5000n | D.TABLE);
  made.put(SECOND.contexts, CD | LEAF2);
  for (const [index, at] of SECOND.stage1.entries()) made.put(at, (0x20_0000n + BigInt(index) * 4096n) | LEAF2);
  made.put(SECOND.leaf, PA_PAGE | LEAF2);
  return made;
}

export const stage1Scene = (): Scene => scene(STE_BITS.STAGE1);
/** Addresses are IPAs: ask for IPA_PAGE. */
export const stage2Scene = (): Scene => scene(STE_BITS.STAGE2);
export const bothScene = (): Scene => scene(STE_BITS.BOTH);
export const bypassScene = (): Scene => scene(STE_BITS.BYPASS);

/** Substreams 0 to 15; the context descriptor of substream 3 is that of the scene. */
export function withSubstreams(made: Scene, S1DSS: bigint): Scene {
  made.set(STE, STE_BITS.S1CDMAX(4n)).set(STE + 8n, S1DSS);
  for (let at = 0n; at < 16n; at += 8n) made.put(CD + 3n * 64n + at, word(made.memory, CD + at));
  return made;
}

export function request(change: Partial<Request> = {}): Request {
  return {
    kind: "untranslated",
    sid: SID,
    ssid: null,
    privileged: false,
    instruction: false,
    write: false,
    iova: VA,
    ...change,
  };
}
