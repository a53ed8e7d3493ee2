import { describe, expect, it } from "vitest";
import type { HpaPfn } from "../../../../../host/base/address.ts";
import { EXECUTE, Machine, READ, type RequestOptions, USER_RW, WRITE } from "./machine.ts";

/** A guest's two interrupt files at GPA 0x28000000 and 0x28001000 (mask bit 0), over an Sv39x4 second stage, first stage Bare. */
const build = (options = {}) => {
  const machine = new Machine(options, 2048);
  machine.enableFaultQueue();
  machine.enableCommandQueue();
  machine.useDirectory(2);
  const guest = machine.makeSecondStageRoot();
  machine.mapMemoryOneToOne(guest, 3);
  const table = machine.allocate();
  machine.setDevice(3, {
    iohgatp_MODE: 8,
    iohgatp_PPN: guest,
    GSCID: 1,
    msiptp_MODE: 1,
    msiptp_PPN: table,
    msi_addr_mask: 1,
    msi_addr_pattern: 0x28000,
    EN_ATS: 1,
  });
  const entry = (index: number, low: bigint, high = 0n) => {
    machine.store(table, index * 16, low);
    machine.store(table, index * 16 + 8, high);
  };
  const basic = (index: number, frame: number) => entry(index, (BigInt(frame) << 10n) | 7n);
  const status = (address: bigint, options: RequestOptions = {}): number =>
    machine.iommu.translate(
      3,
      -1,
      false,
      options.access ?? WRITE,
      Number(address >> 12n),
      Number(address & 0xfffn),
      false,
      options.data ?? 0,
    );
  return { machine, table, guest, entry, basic, status };
};

describe("MSI translation, basic mode (§3.3.3)", () => {
  it("sends an interrupt file's page where its entry says, by interrupt file number", () => {
    const { machine, basic } = build();
    basic(0, 0x24000);
    basic(1, 0x24008);
    expect(machine.request(3, 0x2800_0004n, { access: WRITE })).toBe(0x2400_0004n);
    expect(machine.request(3, 0x2800_1000n, { access: WRITE })).toBe(0x2400_8000n);
    expect(machine.request(3, 0x2800_1000n, { access: READ })).toBe(0x2400_8000n);
  });

  it("refuses execution with an instruction access fault", () => {
    const { machine, basic } = build();
    basic(0, 0x24000);
    expect(machine.request(3, 0x2800_0000n, { access: EXECUTE })).toBeNull();
    expect(machine.takeFaults().map((fault) => fault.cause)).toEqual([1]);
  });

  const bad: readonly [string, bigint, bigint, number][] = [
    ["V = 0", 6n, 0n, 262],
    ["M = 0", 1n, 0n, 263],
    ["M = 2", 5n, 0n, 263],
    ["C = 1", (1n << 63n) | 7n, 0n, 263],
    ["reserved bit 3", 0xfn, 0n, 263],
    ["reserved bit 54", (1n << 54n) | 7n, 0n, 263],
    ["an MRIF entry with reserved bit 3", 0xbn, 0n, 263],
    ["an MRIF entry with reserved bit 59 of its second doubleword", 3n, 1n << 59n, 263],
  ];
  for (const [name, low, high, cause] of bad) {
    it(`reports ${name} as ${cause}`, () => {
      const { machine, entry } = build();
      entry(0, low, high);
      expect(machine.request(3, 0x2800_0000n, { access: WRITE })).toBeNull();
      expect(machine.takeFaults().map((fault) => [fault.cause, fault.iotval2])).toEqual([[cause, 0n]]);
    });
  }

  it("reports entries that cannot be read as 261, corrupted ones as 270", () => {
    const { machine, table } = build();
    machine.inject(table, 8, 2);
    machine.request(3, 0x2800_0000n, { access: WRITE });
    machine.inject(table, 0, 1);
    machine.request(3, 0x2800_0000n, { access: WRITE });
    expect(machine.takeFaults().map((fault) => fault.cause)).toEqual([270, 261]);
  });

  it("is cached until IOTINVAL.GVMA of the machine's GSCID, not by IOTINVAL.VMA", () => {
    const { machine, basic } = build();
    basic(0, 0x24000);
    expect(machine.request(3, 0x2800_0000n, { access: WRITE })).toBe(0x2400_0000n);
    basic(0, 0x24010);
    machine.command("IOTINVAL.VMA", { GV: 1, GSCID: 1 });
    machine.command("IOTINVAL.GVMA", { GV: 1, GSCID: 2 });
    expect(machine.request(3, 0x2800_0000n, { access: WRITE })).toBe(0x2400_0000n);
    machine.command("IOTINVAL.GVMA", { GV: 1, GSCID: 1 });
    expect(machine.request(3, 0x2800_0000n, { access: WRITE })).toBe(0x2401_0000n);
  });

  it("a superpage over an interrupt file does not hide it", () => {
    const { machine, basic, guest } = build();
    machine.map(guest, 3, 0x28000, 0x40000, USER_RW, { level: 1, extraRootBits: 2 });
    basic(0, 0x24000);
    expect(machine.request(3, 0x2800_5000n, { access: WRITE })).toBe(0x4000_5000n);
    expect(machine.request(3, 0x2800_0000n, { access: WRITE })).toBe(0x2400_0000n);
    expect(machine.request(3, 0x2800_6000n, { access: WRITE })).toBe(0x4000_6000n);
  });
});

describe("memory-resident interrupt files (AIA, MRIF mode)", () => {
  const withFile = () => {
    const parts = build();
    const file = parts.machine.allocate();
    const notices: number[] = [];
    parts.machine.memory.addStoreTarget(0x24000 as HpaPfn, { store32: (offset, value) => notices.push(offset, value) });
    // MRIF at file + 0x200; notice 0x401 (NID bit 10 and bit 0) to 0x24000000.
    parts.entry(0, (BigInt(file) << 10n) | (1n << 7n) | 3n, (0x24000n << 10n) | 1n | (1n << 60n));
    return { ...parts, file, notices };
  };

  it("a message sets the pending bit of its identity, and a notice follows whatever the enable bit says", () => {
    const { machine, file, notices, status } = withFile();
    expect(status(0x2800_0000n, { data: 0x45 })).toBe(2);
    expect(machine.load(file, 0x200 + 16)).toBe(1n << 5n);
    expect(notices).toEqual([0, 0x401]);
    expect(status(0x2800_0000n, { data: 2047 })).toBe(2);
    expect(machine.load(file, 0x200 + 31 * 16)).toBe(1n << 63n);
  });

  it("identities above 2047, other offsets and the big-endian doorbell are accepted and discarded", () => {
    const { notices, status } = withFile();
    expect(status(0x2800_0000n, { data: 2048 })).toBe(2);
    expect(status(0x2800_0008n, { data: 5 })).toBe(2);
    expect(status(0x2800_0004n, { data: 5 })).toBe(2);
    expect(notices).toEqual([]);
  });

  it("reads are aborted without a record", () => {
    const { machine, status } = withFile();
    expect(status(0x2800_0000n, { access: READ })).toBe(1);
    expect(machine.takeFaults()).toEqual([]);
  });

  it("a file that cannot be reached is 264, corruption in it 271", () => {
    const { machine, entry, file, status } = withFile();
    machine.inject(file, 0x200, 2);
    expect(status(0x2800_0000n, { data: 1 })).toBe(1);
    entry(0, (0x7n << 10n) | 3n, 0n);
    expect(status(0x2800_0000n, { data: 1 })).toBe(1);
    expect(machine.takeFaults().map((fault) => fault.cause)).toEqual([271, 264]);
  });

  it("is misconfigured (263) without MSI_MRIF", () => {
    const { machine, entry, status } = build({ capabilities: { MSI_MRIF: false, AMO_MRIF: false } });
    entry(0, 3n, 0n);
    expect(status(0x2800_0000n)).toBe(1);
    expect(machine.takeFaults().map((fault) => fault.cause)).toEqual([263]);
  });

  it("an ATS request for its page is answered U = R = W = 1 (§3.6)", () => {
    const { machine } = withFile();
    expect(machine.iommu.translateForDevice(3, -1, 0x28000, false, false, false)).toBe(0);
    expect(machine.iommu.atsTranslation).toMatchObject({
      read: true,
      write: true,
      untranslatedOnly: true,
      sizeLog2: 12,
    });
  });
});
