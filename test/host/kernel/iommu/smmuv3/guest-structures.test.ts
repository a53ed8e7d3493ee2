// What a guest hands over and is told, against the SMMU specification's bit positions (IHI 0070 §4, §5.2, §7.3) and Linux's rules
// (arm-smmu-v3-iommufd.c), written here as numbers: the driver's tables are not asked.

import { describe, expect, it } from "vitest";
import { convertCommand } from "../../../../../host/kernel/iommu/smmuv3/guest-commands.ts";
import { eventForGuest, isHandled, tableFetchForGuest } from "../../../../../host/kernel/iommu/smmuv3/guest-events.ts";
import {
  acceptGuestEntry,
  type GuestStreamEntry,
  nestedStreamEntry,
} from "../../../../../host/kernel/iommu/smmuv3/guest-stream-entry.ts";

const EIO = -5;
const V = 1n;
const config = (value: number) => BigInt(value) << 1n;
const eats = (value: number) => BigInt(value) << 28n;
const STAGE_1 = V | config(5);
const isBetween = (bit: number, high: number, low: number) => bit <= high && bit >= low;

function accepted(ste0: bigint, ste1 = 0n): GuestStreamEntry {
  const guest = acceptGuestEntry(ste0, ste1);
  if (typeof guest === "number") throw new Error(`refused with ${guest}`);
  return guest;
}

describe("a guest's stream table entry", () => {
  it("may set V, Config, S1Fmt, S1ContextPtr 51:6 and S1CDMax of its first doubleword, and nothing else", () => {
    for (let bit = 4; bit < 64; bit++) {
      const may = isBetween(bit, 5, 4) || isBetween(bit, 51, 6) || isBetween(bit, 63, 59);
      expect([bit, acceptGuestEntry(STAGE_1 | (1n << BigInt(bit)), 0n) === EIO]).toEqual([bit, !may]);
    }
  });

  it("may set S1DSS, S1CIR, S1COR, S1CSH, S1STALLD and EATS 0 or 1 of its second doubleword, and nothing else", () => {
    for (let bit = 0; bit < 64; bit++) {
      const may = bit <= 7 || bit === 27 || bit === 28;
      expect([bit, acceptGuestEntry(STAGE_1, 1n << BigInt(bit)) === EIO]).toEqual([bit, !may]);
    }
    expect(acceptGuestEntry(STAGE_1, eats(3))).toBe(EIO);
  });

  it("may have Config 0, 4 and 5", () => {
    const legal = [0, 1, 2, 3, 4, 5, 6, 7].filter((value) => acceptGuestEntry(V | config(value), 0n) !== EIO);
    expect(legal).toEqual([0, 4, 5]);
  });

  it("may hold anything while V is 0, and is kept as zeros", () => {
    expect(accepted(~1n & ((1n << 64n) - 1n), (1n << 64n) - 1n)).toEqual({ config: 0, ste0: 0n, ste1: 0n, ats: null });
  });

  it("decides on ATS with its EATS only if it has stage 1", () => {
    expect(accepted(STAGE_1, eats(1)).ats).toBe(true);
    expect(accepted(STAGE_1, eats(0)).ats).toBe(false);
    expect(accepted(V | config(4), eats(1)).ats).toBeNull();
    expect(accepted(V | config(0), eats(1)).ats).toBeNull();
    expect(acceptGuestEntry(V | config(4), eats(2))).toBe(EIO);
  });
});

describe("the hardware's stream table entry", () => {
  // Config 6; EATS 1, SHCFG 1, S2FWB; VMID 7, S2AA64, S2PTW, S2R; S2TTB.
  const secondStage = [
    V | config(6),
    eats(1) | (1n << 44n) | (1n << 25n),
    7n | (0x449n << 49n),
    0x8000_2000n,
    0n,
    0n,
    0n,
    0n,
  ];

  it("is the parent's under the guest's stage 1, Config 7, and merges its events", () => {
    const ste0 = STAGE_1 | (1n << 4n) | 0x4_5678_9ac0n | (10n << 59n);
    const ste1 = 2n | (1n << 2n) | (1n << 4n) | (3n << 6n) | (1n << 27n) | eats(1);
    const entry = nestedStreamEntry(accepted(ste0, ste1), secondStage);
    expect(entry[0]).toBe((ste0 & ~0xen) | config(7));
    expect(entry[1]).toBe((ste1 & ~eats(3)) | secondStage[1]! | (1n << 19n));
    expect(entry.slice(2)).toEqual(secondStage.slice(2));
  });

  it("has EATS as the host decided, not as the guest asked", () => {
    const withoutAts = secondStage.with(1, secondStage[1]! & ~eats(3));
    const entry = nestedStreamEntry(accepted(STAGE_1, eats(1)), withoutAts);
    expect(entry[1]! & eats(3)).toBe(0n);
  });

  it("is the parent's alone for Config 4", () => {
    expect(nestedStreamEntry(accepted(V | config(4), 2n), secondStage)).toEqual(secondStage);
  });

  it("aborts, valid, for Config 0 and for V = 0", () => {
    const aborts = [V, 0n, 0n, 0n, 0n, 0n, 0n, 0n];
    expect(nestedStreamEntry(accepted(V), secondStage)).toEqual(aborts);
    expect(nestedStreamEntry(accepted(config(5)), secondStage)).toEqual(aborts);
  });
});

describe("a guest's command", () => {
  const scope = { vmid: 0x1234, streamOf: (id: number) => (id === 0x80000010 ? 0x108 : -1) };

  function convert(dword0: bigint, dword1 = 0n): [bigint, bigint] | number {
    const words = new Int32Array(12);
    new BigUint64Array(words.buffer).set([dword0, dword1], 1);
    const untouched = 0xdeadbeef | 0;
    const into = new Int32Array(8).fill(untouched);
    const result = convertCommand(scope, words, 2, into, 4);
    expect([...into.subarray(0, 4)]).toEqual(Array(4).fill(untouched));
    if (result < 0) {
      expect([...into.subarray(4)]).toEqual(Array(4).fill(untouched));
      return result;
    }
    const [first, second] = new BigUint64Array(into.buffer, 16);
    return [first!, second!];
  }

  const ONES = (1n << 64n) - 1n;
  const VMID = 0xffffn << 32n;
  const SID = 0xffff_ffffn << 32n;

  it.each([
    [0x10, "TLBI_NH_ALL"],
    [0x11, "TLBI_NH_ASID"],
    [0x12, "TLBI_NH_VA"],
    [0x13, "TLBI_NH_VAA"],
  ])("0x%s %s gets the parent's VMID and keeps every other bit", (opcode) => {
    const command = (ONES & ~0xffn) | BigInt(opcode);
    expect(convert(command, ONES)).toEqual([(command & ~VMID) | (0x1234n << 32n), ONES]);
    expect(convert(BigInt(opcode), 0x5000n)).toEqual([BigInt(opcode) | (0x1234n << 32n), 0x5000n]);
  });

  it("TLBI_NSNH_ALL becomes TLBI_NH_ALL of the parent's VMID", () => {
    expect(convert((ONES & ~0xffn) | 0x30n, ONES)).toEqual([0x10n | (0x1234n << 32n), 0n]);
  });

  it.each([
    [0x05, "CFGI_CD"],
    [0x06, "CFGI_CD_ALL"],
    [0x40, "ATC_INV"],
  ])("0x%s %s gets the host's StreamID and keeps every other bit", (opcode) => {
    const command = ((ONES & ~0xffn & ~SID) | BigInt(opcode) | (0x80000010n << 32n)) as bigint;
    expect(convert(command, ONES)).toEqual([(command & ~SID) | (0x108n << 32n), ONES]);
    expect(convert(BigInt(opcode) | (0x108n << 32n))).toBe(EIO);
  });

  it("with any other opcode is refused", () => {
    const passing = [0x05, 0x06, 0x10, 0x11, 0x12, 0x13, 0x30, 0x40];
    for (let opcode = 0; opcode < 256; opcode++) {
      const refused = convert(BigInt(opcode) | (0x80000010n << 32n)) === EIO;
      expect([opcode, refused]).toEqual([opcode, !passing.includes(opcode)]);
    }
  });
});

describe("an event record", () => {
  const SSV = 1n << 11n;
  const STREAM = 0x108n << 32n;
  const READ = 1n << 35n;
  const STAGE_2 = 1n << 39n;
  const classOf = (value: number) => BigInt(value) << 40n;
  const decode = (bytes: Uint8Array | null) => (bytes === null ? null : [...new BigUint64Array(bytes.slice().buffer)]);

  it("is handled if it is C_BAD_STE, F_STREAM_DISABLED, C_BAD_SUBSTREAMID, C_BAD_CD or a fault of a translation", () => {
    const handled = Array.from({ length: 256 }, (_, number) => number).filter((number) =>
      isHandled([BigInt(number) | STREAM, 0n, 0n, 0n]),
    );
    expect(handled).toEqual([0x04, 0x06, 0x08, 0x0a, 0x10, 0x11, 0x12, 0x13]);
  });

  it("reaches the guest with the guest's StreamID and is otherwise as it was", () => {
    const words = [0x10n | SSV | (3n << 12n) | STREAM, READ | classOf(2) | (1n << 33n), 0x4000_1234n, 0n];
    const relayed = [0x10n | SSV | (3n << 12n) | (0xffff_fff0n << 32n), ...words.slice(1)];
    expect(decode(eventForGuest(words, 0xffff_fff0n))).toEqual(relayed);
    // A vDEVICE's id is 64 bits, the field is 32 (Linux: FIELD_PREP).
    expect(decode(eventForGuest(words, 0x1_ffff_fff0n))).toEqual(relayed);
  });

  it("in which stage 2 has a part does not", () => {
    expect(eventForGuest([0x10n | STREAM, STAGE_2 | READ | classOf(2), 0x1000n, 0x9000n], 8n)).toBeNull();
  });

  it("of a table fetch that stage 2 refused would read F_WALK_EABT of the guest's physical page (§7.3.12)", () => {
    for (const number of [0x10n, 0x11n, 0x12n, 0x13n]) {
      const dword1 = STAGE_2 | READ | classOf(1) | (1n << 44n) | (1n << 33n) | (1n << 36n);
      const words = [number | SSV | (5n << 12n) | STREAM, dword1, 0x4000_1238n, 0x9_8765_4000n];
      expect(decode(tableFetchForGuest(words, 8n))).toEqual([
        0x0bn | SSV | (5n << 12n) | (8n << 32n),
        READ | classOf(1) | (1n << 33n),
        0x4000_1238n,
        0x9_8765_4000n,
      ]);
    }
  });

  it("of a context descriptor that stage 2 refused would read F_CD_FETCH, which has no input address (§7.3.10)", () => {
    const words = [0x10n | SSV | (5n << 12n) | STREAM, STAGE_2 | READ | classOf(0), 0x4000_1238n, 0x9000n];
    expect(decode(tableFetchForGuest(words, 8n))).toEqual([0x09n | SSV | (5n << 12n) | (8n << 32n), 0n, 0n, 0x9000n]);
  });

  it("of the transaction itself, or of stage 1, is no table fetch", () => {
    expect(tableFetchForGuest([0x10n | STREAM, STAGE_2 | READ | classOf(2), 0x1000n, 0x9000n], 8n)).toBeNull();
    expect(tableFetchForGuest([0x10n | STREAM, READ | classOf(2), 0x1000n, 0n], 8n)).toBeNull();
    expect(tableFetchForGuest([0x0an | STREAM, 0n, 0n, 0n], 8n)).toBeNull();
  });
});
