import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  decodeCapabilities,
  encodeCapabilities,
  msiGuestAddressBits,
  structureRules,
} from "../../../../host/arch/riscv/capabilities.ts";
import {
  type CommandName,
  decodeCommand,
  describeCommand,
  encodeCommand,
  napotAddress,
} from "../../../../host/arch/riscv/commands.ts";
import {
  DEVICE_CONTEXT,
  deviceContextMisconfiguration,
  deviceDirectoryIndex,
  deviceIdBits,
  halvesOf,
  wordsOf,
} from "../../../../host/arch/riscv/device-context.ts";
import {
  decodeFaultRecord,
  describeFaultRecord,
  encodeFaultRecord,
  suppressedByDtf,
} from "../../../../host/arch/riscv/fault-records.ts";
import { interruptFileNumber } from "../../../../host/arch/riscv/message-table.ts";
import { decodePageRequest, encodePageRequest } from "../../../../host/arch/riscv/page-requests.ts";
import { processDirectoryIndex } from "../../../../host/arch/riscv/process-context.ts";
import { describeRegister, REG, REGISTERS, registerAt, registerName } from "../../../../host/arch/riscv/registers.ts";
import { DEFAULT_CAPABILITIES } from "../../../../host/hw/iommu/riscv/options.ts";

const word = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n });

describe("the register page (§6.1)", () => {
  it("has no two registers at one offset, and every name at its documented place", () => {
    const seen = new Set<number>();
    for (const register of REGISTERS) {
      for (let i = 0; i < (register.count ?? 1); i++) {
        const offset = register.offset + i * (register.stride ?? 0);
        for (let byte = 0; byte < register.bytes; byte += 4) {
          expect(seen.has(offset + byte)).toBe(false);
          seen.add(offset + byte);
        }
      }
    }
    expect(registerName(344)).toBe("iohpmctr31");
    expect(registerName(592)).toBe("iohpmevt31");
    expect(registerName(1008)).toBe("msi_addr15");
    expect(registerName(1020)).toBe("msi_vec_ctl15");
    expect(registerName(20)).toBe("ddtp.high");
    expect(registerAt(640)).toBeUndefined();
  });

  it("describes a value by its fields", () => {
    expect(describeRegister(REG.ddtp, (0x80012n << 10n) | 4n)).toBe("ddtp: iommu_mode=3LVL PPN=0x80012");
  });
});

describe("capabilities (§6.3)", () => {
  it("stand at the bits the specification gives them", () => {
    const none = decodeCapabilities(0n);
    const at = (change: object): bigint => encodeCapabilities({ ...none, ...change });
    expect(at({ Sv57: true })).toBe(1n << 11n);
    expect(at({ Svrsw60t59b: true })).toBe(1n << 14n);
    expect(at({ AMO_HWAD: true })).toBe(1n << 24n);
    expect(at({ IGS: 2 })).toBe(2n << 28n);
    expect(at({ PAS: 56 })).toBe(56n << 32n);
    expect(at({ QOSID: true })).toBe(1n << 41n);
    expect(at({ NL: true, S: true })).toBe(3n << 42n);
  });

  it("survive encoding and decoding", () => {
    expect(decodeCapabilities(encodeCapabilities(DEFAULT_CAPABILITIES))).toEqual(DEFAULT_CAPABILITIES);
  });

  it("give MSI masks and patterns the width of the widest second stage, else PAS (§3.1.3.7)", () => {
    const none = decodeCapabilities(0n);
    expect(msiGuestAddressBits({ ...none, Sv39x4: true, Sv48x4: true, Sv57x4: true })).toBe(59);
    expect(msiGuestAddressBits({ ...none, Sv39x4: true, Sv48x4: true })).toBe(50);
    expect(msiGuestAddressBits({ ...none, Sv39x4: true })).toBe(41);
    expect(msiGuestAddressBits({ ...none, Sv32x4: true })).toBe(34);
    expect(msiGuestAddressBits({ ...none, PAS: 46 })).toBe(46);
  });
});

describe("directory indexes (§3)", () => {
  it("split a device_id 7/9/8 in the base format and 6/9/9 in the extended one", () => {
    const id = 0xabcdef;
    expect([0, 1, 2].map((level) => deviceDirectoryIndex(id, level, false))).toEqual([
      id & 0x7f,
      (id >> 7) & 0x1ff,
      id >> 16,
    ]);
    expect([0, 1, 2].map((level) => deviceDirectoryIndex(id, level, true))).toEqual([
      id & 0x3f,
      (id >> 6) & 0x1ff,
      id >> 15,
    ]);
    expect([1, 2, 3].map((levels) => deviceIdBits(levels, false))).toEqual([7, 16, 24]);
    expect([1, 2, 3].map((levels) => deviceIdBits(levels, true))).toEqual([6, 15, 24]);
  });

  it("split a process_id 8/9/3", () => {
    const id = 0xfabcd;
    expect([0, 1, 2].map((level) => processDirectoryIndex(id, level))).toEqual([
      id & 0xff,
      (id >> 8) & 0x1ff,
      id >> 17,
    ]);
  });
});

describe("checks of a device context (§3.1.4)", () => {
  const rules = structureRules({ ...DEFAULT_CAPABILITIES, END: false });
  const reason = (fields: Record<string, bigint | number>, change = rules): string | null => {
    const words = new Array<bigint>(8).fill(0n);
    for (const [name, value] of Object.entries({ V: 1, ...fields })) {
      DEVICE_CONTEXT.set(words, name as keyof typeof DEVICE_CONTEXT.fields, BigInt(value));
    }
    return deviceContextMisconfiguration(halvesOf(words), change);
  };
  const cases: readonly [string, Record<string, bigint | number>, boolean][] = [
    ["an empty valid context is sound", {}, true],
    ["custom bits of tc are nobody's business", { custom: 0xff }, true],
    ["EN_PRI needs EN_ATS", { EN_PRI: 1 }, false],
    ["T2GPA needs EN_ATS", { T2GPA: 1, iohgatp_MODE: 8 }, false],
    ["T2GPA needs a second stage", { EN_ATS: 1, T2GPA: 1 }, false],
    ["T2GPA with a second stage is sound", { EN_ATS: 1, T2GPA: 1, iohgatp_MODE: 8 }, true],
    ["PRPR needs EN_PRI", { EN_ATS: 1, PRPR: 1 }, false],
    ["DPE needs PDTV", { DPE: 1 }, false],
    ["an iosatp mode must exist", { fsc_MODE: 7 }, false],
    ["custom iosatp modes are not supported", { fsc_MODE: 14 }, false],
    ["a pdtp mode must exist", { PDTV: 1, fsc_MODE: 4 }, false],
    ["an iohgatp mode must exist", { iohgatp_MODE: 11 }, false],
    ["a second-stage root is aligned to 16 KiB", { iohgatp_MODE: 8, iohgatp_PPN: 2 }, false],
    ["a Bare second stage has no root to align", { iohgatp_PPN: 2 }, true],
    ["an MSI table mode must exist", { iohgatp_MODE: 8, msiptp_MODE: 2 }, false],
    ["an MSI table needs a second stage (20260222)", { msiptp_MODE: 1 }, false],
    ["SBE must equal a read-only fctl.BE", { SBE: 1 }, false],
    ["SXL must be 0 while GXL cannot be written", { SXL: 1 }, false],
    ["RCID needs QOSID", { RCID: 1 }, false],
    ["MCID needs QOSID", { MCID: 1 }, false],
    ["MSI patterns end at the guest-physical width", { msi_addr_pattern: 1n << 47n }, false],
    ["MSI patterns may use the whole guest-physical width", { msi_addr_pattern: 1n << 46n }, true],
  ];
  for (const [name, fields, sound] of cases) it(name, () => expect(reason(fields) === null).toBe(sound));

  it("finds every reserved bit", () => {
    const reserved: readonly [number, bigint][] = [
      [0, 0xffff_ffff_00ff_f000n],
      [2, 0x0000_00ff_0000_0fffn],
      [3, 0x0fff_f000_0000_0000n],
      [4, 0x0fff_f000_0000_0000n],
      [7, 0xffff_ffff_ffff_ffffn],
    ];
    for (const [index, mask] of reserved) {
      for (let at = 0n; at < 64n; at++) {
        if ((mask & (1n << at)) === 0n) continue;
        const words = [1n, 0n, 0n, 0n, 0n, 0n, 0n, 0n];
        words[index] = words[index]! | (1n << at);
        expect(deviceContextMisconfiguration(halvesOf(words), rules), `word ${index} bit ${at}`).not.toBeNull();
      }
    }
  });

  it("follows capabilities: A/D bits, ATS, modes", () => {
    expect(reason({ SADE: 1 }, structureRules({ ...DEFAULT_CAPABILITIES, AMO_HWAD: false }))).not.toBeNull();
    expect(reason({ EN_ATS: 1 }, structureRules({ ...DEFAULT_CAPABILITIES, ATS: false, T2GPA: false }))).not.toBeNull();
    expect(reason({ fsc_MODE: 10 }, structureRules({ ...DEFAULT_CAPABILITIES, Sv57: false }))).not.toBeNull();
    expect(reason({ PDTV: 1, fsc_MODE: 2 }, structureRules({ ...DEFAULT_CAPABILITIES, PD17: false }))).not.toBeNull();
    const narrow = structureRules(
      { ...DEFAULT_CAPABILITIES, Sv32x4: true, Sv32: true },
      { fctl: 4, gxlWritable: true },
    );
    expect(reason({ SXL: 0 }, narrow)).not.toBeNull();
    expect(reason({ SXL: 1, iohgatp_MODE: 8, fsc_MODE: 8 }, narrow)).toBeNull();
    expect(reason({ SXL: 1, iohgatp_MODE: 9 }, narrow)).not.toBeNull();
    const qos = structureRules({ ...DEFAULT_CAPABILITIES, QOSID: true }, { rcidBits: 4, mcidBits: 6 });
    expect(reason({ RCID: 15, MCID: 63 }, qos)).toBeNull();
    expect(reason({ RCID: 16 }, qos)).not.toBeNull();
    expect(reason({ MCID: 64 }, qos)).not.toBeNull();
  });

  it("halves and doublewords are two views of the same", () => {
    fc.assert(
      fc.property(fc.array(word, { minLength: 8, maxLength: 8 }), (words) => {
        expect(wordsOf(halvesOf(words))).toEqual(words);
      }),
    );
  });
});

describe("commands (§4.1)", () => {
  const names: CommandName[] = [
    "IOTINVAL.VMA",
    "IOTINVAL.GVMA",
    "IOFENCE.C",
    "IODIR.INVAL_DDT",
    "IODIR.INVAL_PDT",
    "ATS.INVAL",
    "ATS.PRGR",
  ];
  it("are encoded as the specification draws them", () => {
    expect(encodeCommand("IOTINVAL.VMA", { AV: 1, PSCV: 1, PSCID: 5, GV: 1, GSCID: 3, ADDR: 0x12 })).toEqual([
      1n | (1n << 10n) | (5n << 12n) | (1n << 32n) | (1n << 33n) | (3n << 44n),
      0x12n << 10n,
    ]);
    expect(encodeCommand("IOFENCE.C", { AV: 1, PR: 1, DATA: 7, ADDR: 0x100 })).toEqual([
      2n | (1n << 10n) | (1n << 12n) | (7n << 32n),
      0x100n,
    ]);
    expect(encodeCommand("IODIR.INVAL_PDT", { DV: 1, DID: 0x108, PID: 9 })).toEqual([
      3n | (1n << 7n) | (9n << 12n) | (1n << 33n) | (0x108n << 40n),
      0n,
    ]);
    expect(encodeCommand("ATS.PRGR", { RID: 0x108, PRGI: 5, code: 15 })).toEqual([
      4n | (1n << 7n) | (0x108n << 40n),
      (5n << 32n) | (15n << 44n),
    ]);
  });

  it("decode to what was encoded, with no reserved bit", () => {
    fc.assert(
      fc.property(fc.constantFrom(...names), word, word, (name, a, b) => {
        const shape = decodeCommand(...encodeCommand(name)).fields;
        const fields = Object.fromEntries(Object.keys(shape).map((key, i) => [key, i % 2 === 0 ? a : b]));
        const decoded = decodeCommand(
          ...encodeCommand(name, { ...fields, opcode: shape.opcode!, func3: shape.func3! }),
        );
        expect(decoded.name).toBe(name);
        expect(decoded.reservedBits).toBe(false);
      }),
    );
  });

  it("describe themselves, unknown ones too", () => {
    expect(describeCommand(...encodeCommand("IOTINVAL.VMA", { GV: 1, GSCID: 3 }))).toBe("IOTINVAL.VMA GV=1 GSCID=0x3");
    expect(describeCommand(0x45n, 0n)).toMatch(/illegal/);
    expect(decodeCommand(0x45n, 0n).name).toBeNull();
  });

  it("a NAPOT range says its size by its lowest 0 bit", () => {
    expect(napotAddress(0x100n, 2n)).toBe(0x100n);
    expect(napotAddress(0x100n, 16n)).toBe(0x107n);
  });
});

describe("fault records (§4.2)", () => {
  const record = fc.record({
    cause: fc.integer({ min: 0, max: 4095 }),
    deviceId: fc.integer({ min: 0, max: 0xffffff }),
    processId: fc.integer({ min: 0, max: 0xfffff }),
    privileged: fc.boolean(),
    ttyp: fc.integer({ min: 0, max: 63 }),
    iotval: word,
    iotval2: word,
  });
  it("survive encoding and decoding", () => {
    fc.assert(
      fc.property(record, (one) => {
        expect(decodeFaultRecord(encodeFaultRecord(one))).toEqual(one);
      }),
    );
  });

  it("carry neither PID nor PRIV without PV", () => {
    const words = encodeFaultRecord({
      cause: 13,
      deviceId: 1,
      processId: -1,
      privileged: true,
      ttyp: 2,
      iotval: 0n,
      iotval2: 0n,
    });
    expect(words[0]).toBe(13n | (2n << 34n) | (1n << 40n));
  });

  it("with DTF = 1 only causes 256 to 259, 268, 272 and 273 are reported", () => {
    const causes = [1, 5, 7, 12, 13, 15, 20, 21, 23, ...Array.from({ length: 19 }, (_, i) => 256 + i)];
    const kept = causes.filter((cause) => !suppressedByDtf(cause));
    expect(kept).toEqual([256, 257, 258, 259, 268, 272, 273]);
  });

  it("read as a sentence", () => {
    const text = describeFaultRecord({
      cause: 21,
      deviceId: 0x108,
      processId: 3,
      privileged: false,
      ttyp: 2,
      iotval: 0x1000n,
      iotval2: 0x2001n,
    });
    expect(text).toBe(
      "read guest-page fault (21), untranslated read, device 0x108 pasid 3, iotval 0x1000, iotval2 0x2001",
    );
  });
});

describe("page-request records (§4.3)", () => {
  it("survive encoding and decoding", () => {
    const request = {
      deviceId: 0x123456,
      processId: 0xabcde,
      privileged: true,
      execute: true,
      read: true,
      write: false,
      last: true,
      group: 0x1ab,
      address: 0xffff_ffff_ffff_f000n,
    };
    expect(decodePageRequest(encodePageRequest(request))).toEqual(request);
  });
});

describe("interrupt file numbers (AIA, extract)", () => {
  it("pack the bits the mask selects, in order", () => {
    // x = a b c d e f g h, y = 1 0 1 0 0 1 1 0 gives a c f g.
    expect(interruptFileNumber(0b1010_0110, 0, 0b1010_0110, 0)).toBe(0b1111);
    expect(interruptFileNumber(0b1000_0010, 0, 0b1010_0110, 0)).toBe(0b1001);
    expect(interruptFileNumber(0, 0x80000, 1, 0x80001)).toBe(0b100);
  });

  it("agree with the definition for any address and mask", () => {
    const page = fc.bigInt({ min: 0n, max: (1n << 52n) - 1n });
    fc.assert(
      fc.property(page, page, (address, mask) => {
        let expected = "";
        for (let at = 51n; at >= 0n; at--) if ((mask >> at) & 1n) expected += (address >> at) & 1n;
        const halves = (value: bigint): [number, number] => [Number(value & 0xffffffffn) | 0, Number(value >> 32n)];
        const [lo, hi] = halves(address);
        const [maskLo, maskHi] = halves(mask);
        expect(interruptFileNumber(lo, hi, maskLo, maskHi)).toBe(expected === "" ? 0 : Number.parseInt(expected, 2));
      }),
    );
  });
});
