import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  CAP,
  decodeCapabilities,
  domainLimit,
  ECAP,
  encodeCapabilities,
  secondStageBits,
  type VtdFeatures,
} from "../../../../host/arch/vtd/capabilities.ts";
import { FAULT_REASONS, faultReasonName, QUALIFIED } from "../../../../host/arch/vtd/fault-reasons.ts";
import { decodeFaultRecord, describeFaultRecord, FAULT_RECORD } from "../../../../host/arch/vtd/fault-records.ts";
import { IRTE, irteReserved, remappableMessage, sourceAllowed } from "../../../../host/arch/vtd/interrupt-remapping.ts";
import {
  decodeDescriptor,
  deviceTlbPages,
  encodeDescriptor,
  RESERVED_BITS,
} from "../../../../host/arch/vtd/invalidation-descriptors.ts";
import { decodePageRequest, PAGE_REQUEST } from "../../../../host/arch/vtd/page-requests.ts";
import {
  PASID_ENTRY,
  pasidDirectoryReserved,
  pasidInvalid,
  pasidReserved,
} from "../../../../host/arch/vtd/pasid-entries.ts";
import { registerBytes, registersOf } from "../../../../host/arch/vtd/registers.ts";
import {
  CONTEXT,
  contextInvalid,
  contextReserved,
  pasidLimit,
  rootReserved,
  SCALABLE_CONTEXT,
  scalableContextInvalid,
  scalableContextReserved,
  scalableRootReserved,
} from "../../../../host/arch/vtd/root-and-context.ts";
import { StructureRules } from "../../../../host/arch/vtd/structure-rules.ts";

const ALL: VtdFeatures = {
  ...{
    ND: 6,
    RWBF: false,
    CM: false,
    SAGAW: 14,
    MGAW: 56,
    ZLR: true,
    FRO: 0x40,
    SSLPS: 3,
    PSI: true,
    NFR: 7,
    MAMV: 63,
  },
  ...{ DWD: true, DRD: true, FS1GP: true, PI: true, FS5LP: true, ESIRTPS: true, ESRTPS: true, C: true, QI: true },
  ...{ DT: true, IR: true, EIM: true, PT: true, SC: true, IRO: 0x50, MHMV: 15, MTS: true, NEST: true, PRS: true },
  ...{ SRS: true, NWFS: true, EAFS: true, PSS: 19, PASID: true, DIT: true, PDS: true, SMTS: true, SSADS: true },
  ...{ SSTS: true, FSTS: true, SMPWCS: true, RPS: true, ADMS: true, RPRIVS: true },
};
const HAW = 46;
const rules = (change: Partial<VtdFeatures> = {}): StructureRules => new StructureRules({ ...ALL, ...change }, HAW);

/** Quadwords as halves, signed: as hot code holds structures. */
function halves(words: readonly bigint[]): Int32Array {
  return Int32Array.from(words.flatMap((word) => [Number(word & 0xffff_ffffn) | 0, Number(word >> 32n) | 0]));
}

/** Bits of `count` quadwords for which `reserved` is true, one at a time, over entries that are otherwise empty. */
function reservedOf(count: number, reserved: (words: Int32Array) => boolean): string[] {
  const found: string[] = [];
  for (let word = 0; word < count; word++) {
    let first = -1;
    for (let at = 0; at <= 64; at++) {
      const words = new Array<bigint>(count).fill(0n);
      if (at < 64) words[word] = 1n << BigInt(at);
      const is = at < 64 && reserved(halves(words));
      if (is && first < 0) first = at;
      if (!is && first >= 0) {
        found.push(`q${word} ${at - 1 === first ? first : `${at - 1}:${first}`}`);
        first = -1;
      }
    }
  }
  return found;
}

describe("registers (§11.4)", () => {
  it("no two overlap, whatever IRO and FRO say, and all lie in the register space", () => {
    const seen = new Set<number>();
    for (const register of registersOf(ALL)) {
      for (let at = register.offset; at < register.offset + register.bytes; at += 4) {
        expect(seen.has(at), register.name).toBe(false);
        seen.add(at);
      }
      expect(register.offset + register.bytes).toBeLessThanOrEqual(registerBytes(ALL));
      expect(register.offset % Math.min(8, register.bytes), register.name).toBe(0);
    }
    expect(registerBytes({ ...ALL, FRO: 0x3ff })).toBe(5 * 4096);
  });

  it("CAP and ECAP hold the fields where Linux's accessors look for them", () => {
    const { CAP: cap, ECAP: ecap } = encodeCapabilities(ALL);
    expect([cap & 7n, (cap >> 8n) & 0x1fn, (cap >> 16n) & 0x3fn]).toEqual([6n, 14n, 56n]);
    expect([(cap >> 24n) & 0x3ffn, (cap >> 34n) & 15n, (cap >> 40n) & 0xffn, (cap >> 48n) & 0x3fn]).toEqual([
      0x40n,
      3n,
      7n,
      63n,
    ]);
    for (const at of [22n, 39n, 54n, 55n, 56n, 59n, 60n, 62n, 63n]) expect((cap >> at) & 1n, `CAP ${at}`).toBe(1n);
    for (const at of [3n, 4n, 5n, 6n, 7n, 61n]) expect((cap >> at) & 1n, `CAP ${at}`).toBe(0n);
    expect([(ecap >> 8n) & 0x3ffn, (ecap >> 20n) & 15n, (ecap >> 35n) & 0x1fn]).toEqual([0x50n, 15n, 19n]);
    const set = [0, 1, 2, 3, 4, 6, 7, 25, 26, 29, 31, 33, 34, 40, 41, 42, 43, 45, 46, 47, 48, 49, 52, 53];
    for (const at of set) expect((ecap >> BigInt(at)) & 1n, `ECAP ${at}`).toBe(1n);
    for (const at of [5n, 24n, 27n, 28n, 30n, 32n, 44n, 51n]) expect((ecap >> at) & 1n, `ECAP ${at}`).toBe(0n);
    expect(decodeCapabilities(cap, ecap)).toMatchObject(ALL);
  });

  it("any CAP and ECAP survive decoding and encoding in the bits that features name", () => {
    const word = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n });
    fc.assert(
      fc.property(word, word, (cap, ecap) => {
        const again = encodeCapabilities(decodeCapabilities(cap, ecap));
        expect(again).toEqual({ CAP: cap & CAP.definedBits(0), ECAP: ecap & ECAP.definedBits(0) });
      }),
    );
  });

  it("widths and domain ids", () => {
    expect([0, 1, 2, 3, 4].map((aw) => secondStageBits(aw, ALL))).toEqual([0, 39, 48, 57, 0]);
    expect([1, 2, 3].map((aw) => secondStageBits(aw, { ...ALL, SAGAW: 4 }))).toEqual([0, 48, 0]);
    expect([0, 4, 6].map((ND) => domainLimit({ ...ALL, ND }))).toEqual([16, 4096, 65536]);
  });
});

describe("structures: reserved bits", () => {
  it("root entry (§9.1)", () => {
    expect(reservedOf(2, (words) => rootReserved(words, rules()))).toEqual(["q0 11:1", "q0 63:46", "q1 63:0"]);
  });

  it("half a scalable-mode root entry (§9.2)", () => {
    expect(reservedOf(1, (words) => scalableRootReserved(words[0]!, words[1]!, rules()))).toEqual([
      "q0 11:1",
      "q0 63:46",
    ]);
  });

  it("context entry (§9.3), whose domain id is as wide as ND says", () => {
    expect(reservedOf(2, (words) => contextReserved(words, rules()))).toEqual([
      "q0 11:4",
      "q0 63:46",
      "q1 7",
      "q1 63:24",
    ]);
    expect(reservedOf(2, (words) => contextReserved(words, rules({ ND: 4 })))).toContain("q1 63:20");
  });

  it("scalable-mode context entry (§9.4)", () => {
    expect(reservedOf(4, (words) => scalableContextReserved(words, rules()))).toEqual([
      ...["q0 8:5", "q0 63:46", "q1 63:21", "q2 63:0", "q3 63:0"],
    ]);
    const without = (change: Partial<VtdFeatures>): string[] =>
      reservedOf(4, (words) => scalableContextReserved(words, rules(change)));
    expect(without({ RPS: false })).toContain("q1 19:0");
    expect(without({ RPRIVS: false })).toContain("q1 63:20");
    expect(without({ DT: false })).toContain("q0 2");
    expect(without({ PASID: false })).toContain("q0 3");
    expect(without({ PRS: false })).toContain("q0 8:4");
  });

  it("PASID directory entry (§9.5)", () => {
    expect(reservedOf(1, (words) => pasidDirectoryReserved(words[0]!, words[1]!, rules()))).toEqual([
      "q0 11:2",
      "q0 63:46",
    ]);
  });

  it("PASID entry (§9.6): a field whose capability is absent is reserved", () => {
    const of = (change: Partial<VtdFeatures> = {}): string[] =>
      reservedOf(8, (words) => pasidReserved(words, rules(change)));
    const upper = ["q3 63:0", "q4 63:0", "q5 63:0", "q6 63:0", "q7 63:0"];
    const q0 = ["q0 5", "q0 11:10", "q0 63:46"];
    const q1 = ["q1 22:16", "q1 31:27"];
    const q2 = ["q2 1", "q2 11:8", "q2 63:46"];
    expect(of()).toEqual([...q0, ...q1, ...q2, ...upper]);
    expect(of({ SSADS: false })).toContain("q0 11:9");
    expect(of({ SMPWCS: false })).toContain("q1 23:16");
    expect(of({ SC: false })).toContain("q1 24");
    expect(of({ MTS: false })).toContain("q1 63:25");
    expect(of({ SSTS: false })).toEqual(["q0 5:2", "q0 63:9", ...q1, ...q2, ...upper]);
    expect(of({ FSTS: false })).toEqual([...q0, ...q1, "q2 4:1", "q2 63:8", ...upper]);
    expect(of({ SRS: false })).toContain("q2 1:0");
    expect(of({ EAFS: false })).toContain("q2 11:7");
    expect(of({ ND: 5 })).toContain("q1 22:14");
  });

  it("IRTE (§9.9): destinations of 8 bits without EIME", () => {
    expect(reservedOf(2, (words) => irteReserved(words, true, rules()))).toEqual(["q0 14:12", "q0 31:24", "q1 63:20"]);
    const xapic = reservedOf(2, (words) => irteReserved(words, false, rules()));
    expect(xapic).toEqual(["q0 14:12", "q0 39:24", "q0 63:48", "q1 63:20"]);
  });
});

describe("structures: what is invalid", () => {
  const context = (fields: Record<string, number>): Int32Array => {
    const words = [0n, 0n];
    for (const [name, value] of Object.entries(fields))
      CONTEXT.set(words, name as keyof typeof CONTEXT.fields, BigInt(value));
    return halves(words);
  };
  const pasid = (fields: Record<string, number>): Int32Array => {
    const words = new Array<bigint>(8).fill(0n);
    for (const [name, value] of Object.entries(fields))
      PASID_ENTRY.set(words, name as keyof typeof PASID_ENTRY.fields, BigInt(value));
    return halves(words);
  };
  const contexts: readonly [string, Record<string, number>, Partial<VtdFeatures>, boolean][] = [
    ["48 bits", { AW: 2 }, {}, true],
    ["AW 0", { AW: 0 }, {}, false],
    ["AW not in SAGAW", { AW: 3 }, { SAGAW: 4 }, false],
    ["pass-through with AW not in SAGAW", { TT: 2, AW: 3 }, { SAGAW: 4 }, false],
    ["pass-through without PT", { TT: 2, AW: 2 }, { PT: false }, false],
    ["ATS without DT", { TT: 1, AW: 2 }, { DT: false }, false],
    ["TT 3", { TT: 3, AW: 2 }, {}, false],
  ];
  for (const [name, fields, change, sound] of contexts)
    it(`context entry: ${name}`, () => expect(contextInvalid(context(fields), rules(change)) === null).toBe(sound));

  const entries: readonly [string, Record<string, number>, Partial<VtdFeatures>, boolean][] = [
    ["PGTT 0", { PGTT: 0 }, {}, false],
    ["PGTT 5", { PGTT: 5, AW: 2 }, {}, false],
    ["first stage", { PGTT: 1 }, {}, true],
    ["first stage without FSTS", { PGTT: 1 }, { FSTS: false }, false],
    ["first stage of 5 levels", { PGTT: 1, FSPM: 1 }, {}, true],
    ["first stage of 5 levels without FS5LP", { PGTT: 1, FSPM: 1 }, { FS5LP: false }, false],
    ["first stage, FSPM 2", { PGTT: 1, FSPM: 2 }, {}, false],
    ["second stage, whose FSPM says nothing", { PGTT: 2, AW: 2, FSPM: 2 }, {}, true],
    ["second stage, AW 0", { PGTT: 2 }, {}, false],
    ["second stage without SSTS", { PGTT: 2, AW: 2 }, { SSTS: false }, false],
    ["nested", { PGTT: 3, AW: 1 }, {}, true],
    ["nested without NEST", { PGTT: 3, AW: 2 }, { NEST: false }, false],
    ["nested, AW 4", { PGTT: 3, AW: 4 }, {}, false],
    ["pass-through, whose AW says nothing", { PGTT: 4 }, {}, true],
    ["pass-through without PT", { PGTT: 4 }, { PT: false }, false],
  ];
  for (const [name, fields, change, sound] of entries)
    it(`PASID entry: ${name}`, () => expect(pasidInvalid(pasid(fields), rules(change)) === null).toBe(sound));

  it("RID_PASID lies in the PASID directory, of 2^(PDTS + 13) PASIDs", () => {
    const invalid = (PDTS: bigint, RID_PASID: bigint): boolean => {
      const words = [0n, 0n, 0n, 0n];
      SCALABLE_CONTEXT.set(words, "PDTS", PDTS);
      SCALABLE_CONTEXT.set(words, "RID_PASID", RID_PASID);
      return scalableContextInvalid(halves(words)) !== null;
    };
    expect(pasidLimit(0)).toBe(8192);
    expect([invalid(0n, 8191n), invalid(0n, 8192n), invalid(1n, 8192n), invalid(7n, 0xfffffn)]).toEqual([
      ...[false, true, false, false],
    ]);
  });
});

describe("invalidation descriptors (§6.5.2)", () => {
  // Right: built by hand from the bit positions of Linux's QI_* macros.
  it("are encoded as drivers build them", () => {
    expect(encodeDescriptor("context", { G: 3, DID: 0x1234, SID: 0x108, FM: 2 })).toEqual([
      1n | (3n << 4n) | (0x1234n << 16n) | (0x108n << 32n) | (2n << 48n),
      0n,
    ]);
    expect(encodeDescriptor("iotlb", { G: 3, DW: 1, DR: 1, DID: 5, AM: 9, IH: 1, ADDR: 0x12200 })).toEqual([
      2n | (3n << 4n) | (1n << 6n) | (1n << 7n) | (5n << 16n),
      9n | (1n << 6n) | (0x12200n << 12n),
    ]);
    expect(encodeDescriptor("deviceTlb", { SID: 0x108, MIP: 7, PFSID: 0xabcd, S: 1, ADDR: 0x7fff })).toEqual([
      3n | (0xdn << 12n) | (7n << 16n) | (0x108n << 32n) | (0xabcn << 52n),
      1n | (0x7fffn << 12n),
    ]);
    expect(encodeDescriptor("interruptEntry", { G: 1, IM: 3, IIDX: 0x88 })).toEqual([
      4n | (1n << 4n) | (3n << 27n) | (0x88n << 32n),
      0n,
    ]);
    expect(encodeDescriptor("wait", { SW: 1, FN: 1, PD: 1, STDATA: 2, STADDR: 0x1000n >> 2n })).toEqual([
      5n | (1n << 5n) | (1n << 6n) | (1n << 7n) | (2n << 32n),
      0x1000n,
    ]);
    expect(encodeDescriptor("pasidIotlb", { G: 3, DID: 5, PASID: 0xf1234, AM: 1, ADDR: 2 })).toEqual([
      6n | (3n << 4n) | (5n << 16n) | (0xf1234n << 32n),
      1n | (2n << 12n),
    ]);
    expect(encodeDescriptor("pasidCache", { G: 1, DID: 5, PASID: 3 })).toEqual([
      7n | (1n << 4n) | (5n << 16n) | (3n << 32n),
      0n,
    ]);
    expect(
      encodeDescriptor("pasidDeviceTlb", { SID: 0x108, MIP: 3, PASID: 9, PFSID: 0x12, S: 1, G: 1, ADDR: 1 }),
    ).toEqual([
      8n | (3n << 4n) | (2n << 12n) | (0x108n << 16n) | (9n << 32n) | (1n << 52n),
      1n | (1n << 11n) | (1n << 12n),
    ]);
    expect(encodeDescriptor("pageGroupResponse", { PP: 1, RID: 0x108, PASID: 9, code: 1, PRGI: 0x1ff })).toEqual([
      9n | (1n << 4n) | (1n << 12n) | (0x108n << 16n) | (9n << 32n),
      0x1ffn << 3n,
    ]);
    expect(() => encodeDescriptor("wait", { AM: 1 })).toThrow(RangeError);
  });

  it("the masks of reserved bits say what the decoder says", () => {
    const word = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n });
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 9 }), word, word, word, word, (type, a, b, c, d) => {
        const q0 = (a & c & ~0xe0fn) | BigInt(type);
        const q1 = b & d;
        const words = halves([q0, q1]);
        let reserved = 0;
        for (let i = 0; i < 4; i++) reserved |= words[i]! & RESERVED_BITS[4 * type + i]!;
        expect(reserved !== 0).toBe(decodeDescriptor([q0, q1]).reservedBits);
      }),
    );
    expect(decodeDescriptor([0x205n, 0n]).type).toBe(0x15);
    expect(decodeDescriptor([5n, 0n, 1n, 0n]).reservedBits).toBe(true);
  });

  it("a device-TLB range is as ATS encodes it", () => {
    expect([
      deviceTlbPages(5, false),
      deviceTlbPages(4, true),
      deviceTlbPages(5, true),
      deviceTlbPages(0xff, true),
    ]).toEqual([1, 2, 4, 512]);
    expect(deviceTlbPages(2 ** 51 - 1, true)).toBe(2 ** 52);
  });
});

describe("records", () => {
  it("a fault record's parts stand where Linux reads them", () => {
    const words = [0x1234_5000n, (1n << 63n) | (1n << 62n) | (9n << 40n) | (0x59n << 32n) | (1n << 31n) | 0x108n];
    expect(decodeFaultRecord(words)).toEqual({
      ...{ reason: 0x59, sourceId: 0x108, pasid: 9, type: 2, addressType: 0, privileged: false, execute: false },
      ...{ address: 0x1234_5000n, valid: true },
    });
    expect(describeFaultRecord(words)).toBe(
      "SPT.2 (59h): PASID entry not present: read by 0x108, PASID 9, at 0x12345000",
    );
    const interrupt = [0x88n << 48n, 0n];
    FAULT_RECORD.set(interrupt, "FR", 0x22n);
    FAULT_RECORD.set(interrupt, "SID", 0x108n);
    expect(describeFaultRecord(interrupt)).toBe(
      "IR (22h): interrupt remapping entry not present: index 136 from 0x108",
    );
  });

  it("fault reasons qualified by FPD are those of the specification's table", () => {
    const unqualified = Object.keys(FAULT_REASONS)
      .map(Number)
      .filter((reason) => QUALIFIED[reason] === 0);
    expect(unqualified).toEqual(
      [
        ...[
          0x01, 0x08, 0x09, 0x0a, 0x20, 0x21, 0x23, 0x25, 0x29, 0x30, 0x31, 0x32, 0x33, 0x38, 0x39, 0x3a, 0x40, 0x50,
          0x58,
        ],
      ].sort((a, b) => a - b),
    );
    expect(faultReasonName(0x99)).toBe("fault reason 99h");
  });

  it("a page request's parts stand where Linux reads them", () => {
    const words = [0n, 0n, 0n, 0n];
    PAGE_REQUEST.set(words, "type", 1n);
    PAGE_REQUEST.set(words, "RID", 0x108n);
    expect(words[0]).toBe(1n | (0x108n << 16n));
    const q0 = 1n | (1n << 8n) | (0x108n << 16n) | (7n << 32n) | (1n << 53n);
    const q1 = 1n | (1n << 1n) | (1n << 2n) | (0x1abn << 3n) | (0x77n << 12n);
    expect(decodePageRequest([q0, q1, 0n, 0n])).toEqual({
      ...{ requesterId: 0x108, pasid: 7, address: 0x77000n, group: 0x1ab, read: true, write: true, execute: false },
      ...{ privileged: true, last: true },
    });
  });

  it("an MSI names its table entry: handle bits 14:0 at 19:5, bit 15 at 2", () => {
    expect(remappableMessage(0x8001).address).toBe(0xfee00010 + (1 << 5) + (1 << 2));
  });

  it("source ids are checked as SVT and SQ say", () => {
    const words = (SVT: number, SQ: number, SID: number): Int32Array => {
      const entry = [0n, 0n];
      IRTE.set(entry, "SVT", BigInt(SVT));
      IRTE.set(entry, "SQ", BigInt(SQ));
      IRTE.set(entry, "SID", BigInt(SID));
      return halves(entry);
    };
    expect(sourceAllowed(words(0, 0, 0x108), 0xffff)).toBe(true);
    const masks = [0xffff, 0xfffb, 0xfff9, 0xfff8];
    for (const [SQ, mask] of masks.entries())
      for (let sid = 0x100; sid < 0x110; sid++)
        expect(sourceAllowed(words(1, SQ, 0x108), sid)).toBe((sid & mask) === (0x108 & mask));
    // Buses 2 to 5: start in the high byte.
    expect([0x1ff, 0x200, 0x5ff, 0x600].map((sid) => sourceAllowed(words(2, 0, 0x0205), sid))).toEqual([
      ...[false, true, true, false],
    ]);
  });
});
