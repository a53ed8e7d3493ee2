import { describe, expect, it } from "vitest";
import { napotAddress } from "../../../../../host/arch/riscv/commands.ts";
import { type Fields, G, Machine, USER_RW, USER_RWX } from "./machine.ts";

/** Two host processes (PSCID 1 on device 1, PSCID 2 on device 2) and one machine's (GSCID 7, PSCID 1 on device 3), Sv39. */
const build = () => {
  const machine = new Machine({}, 1024);
  machine.enableFaultQueue();
  machine.enableCommandQueue();
  machine.useDirectory(1);
  const guest = machine.makeSecondStageRoot();
  machine.mapMemoryOneToOne(guest, 3);
  const roots = [0, 1, 2, 3].map(() => machine.makeRoot());
  machine.setDevice(1, { fsc_MODE: 8, fsc_PPN: roots[1]!, PSCID: 1 });
  machine.setDevice(2, { fsc_MODE: 8, fsc_PPN: roots[2]!, PSCID: 2 });
  machine.setDevice(3, { fsc_MODE: 8, fsc_PPN: roots[3]!, PSCID: 1, iohgatp_MODE: 8, iohgatp_PPN: guest, GSCID: 7 });
  /** Maps, uses and then remaps a page, so that a cached translation can be told from a fresh one. */
  const touch = (device: number, pfn: number, flags = USER_RW, level = 0) => {
    const old = 0x80000 + (level === 0 ? 0x100 : 0);
    const place = machine.map(roots[device]!, 3, pfn, old, flags, { level });
    expect(machine.request(device, BigInt(pfn) << 12n)).not.toBeNull();
    machine.store(place.frame, place.offset, (0x80200n << 10n) | BigInt(flags));
  };
  const cached = (device: number, pfn: number): boolean =>
    machine.request(device, BigInt(pfn) << 12n) !== 0x80200n << 12n;
  return { machine, roots, guest, touch, cached };
};

describe("IOTINVAL.VMA (§4.1.1)", () => {
  const everything: readonly (readonly [number, number])[] = [
    [1, 0x10],
    [1, 0x20],
    [1, 0x30],
    [2, 0x10],
    [3, 0x10],
  ];
  // Page 0x30 of process 1 is a global mapping. Each case: what is left in the cache of [1,10] [1,20] [1,30 global] [2,10] [3,10].
  const cases: readonly [string, Fields, readonly boolean[]][] = [
    ["of all host spaces takes globals too, and no machine's", {}, [false, false, false, false, true]],
    ["of a PSCID spares globals", { PSCV: 1, PSCID: 1 }, [false, false, true, true, true]],
    ["of a page takes it in every host space", { AV: 1, ADDR: 0x10 }, [false, true, true, false, true]],
    ["of a page takes a global mapping", { AV: 1, ADDR: 0x30 }, [true, true, false, true, true]],
    ["of a page in a PSCID", { AV: 1, ADDR: 0x10, PSCV: 1, PSCID: 1 }, [false, true, true, true, true]],
    [
      "of a page in a PSCID spares a global mapping",
      { AV: 1, ADDR: 0x30, PSCV: 1, PSCID: 1 },
      [true, true, true, true, true],
    ],
    ["of a GSCID takes that machine's", { GV: 1, GSCID: 7 }, [true, true, true, true, false]],
    ["of another GSCID takes nothing", { GV: 1, GSCID: 8 }, [true, true, true, true, true]],
    ["of a PSCID in a GSCID", { GV: 1, GSCID: 7, PSCV: 1, PSCID: 1 }, [true, true, true, true, false]],
    ["of another PSCID in a GSCID", { GV: 1, GSCID: 7, PSCV: 1, PSCID: 2 }, [true, true, true, true, true]],
    ["of a range elsewhere", { AV: 1, S: 1, ADDR: napotAddress(0x40n, 32n) }, [true, true, true, true, true]],
    ["of a range of 64 pages", { AV: 1, S: 1, ADDR: napotAddress(0n, 64n) }, [false, false, false, false, true]],
    [
      "of the whole address space as a range",
      { AV: 1, S: 1, ADDR: (1n << 51n) - 1n },
      [false, false, false, false, true],
    ],
    ["with NL", { AV: 1, NL: 1, ADDR: 0x20 }, [true, false, true, true, true]],
  ];
  for (const [name, fields, left] of cases) {
    it(name, () => {
      const { machine, touch, cached } = build();
      for (const [device, pfn] of everything) touch(device, pfn, pfn === 0x30 ? USER_RW | G : USER_RW);
      machine.command("IOTINVAL.VMA", fields);
      expect(everything.map(([device, pfn]) => cached(device, pfn))).toEqual(left);
    });
  }

  it("any address of a superpage takes all of it, and no other", () => {
    const { machine, touch, cached } = build();
    touch(1, 0x400, USER_RW, 1);
    touch(1, 0x10);
    machine.command("IOTINVAL.VMA", { AV: 1, ADDR: 0x5ff });
    expect([cached(1, 0x400), cached(1, 0x10)]).toEqual([false, true]);
  });

  it("any address of a superpage takes every piece it was cached in", () => {
    const { machine, roots } = build();
    // A 2 MiB first-stage page over 4 KiB second-stage pages: 512 possible pieces.
    const place = machine.map(roots[3]!, 3, 0x400, 0x80000, USER_RW, { level: 1 });
    const piece = (index: number) => machine.request(3, BigInt(0x400 + index) << 12n);
    expect([piece(1), piece(300)]).toEqual([0x80001000n, 0x8012c000n]);
    machine.store(place.frame, place.offset, (0x80200n << 10n) | BigInt(USER_RW));
    expect([piece(1), piece(300)]).toEqual([0x80001000n, 0x8012c000n]);
    machine.command("IOTINVAL.VMA", { GV: 1, GSCID: 7, PSCV: 1, PSCID: 1, AV: 1, ADDR: 0x4aa });
    expect([piece(1), piece(300)]).toEqual([0x80201000n, 0x8032c000n]);
  });
});

describe("IOTINVAL.GVMA (§4.1.1)", () => {
  const cases: readonly [string, Fields, boolean][] = [
    ["of all machines", {}, false],
    ["of the machine", { GV: 1, GSCID: 7 }, false],
    ["of a guest-physical page of it", { GV: 1, GSCID: 7, AV: 1, ADDR: 0x80100 }, false],
    ["of another machine", { GV: 1, GSCID: 6 }, true],
  ];
  for (const [name, fields, left] of cases) {
    it(`${name} ${left ? "leaves" : "drops"} translations that went through its second stage`, () => {
      const { machine, guest, touch, cached, roots } = build();
      touch(1, 0x10);
      machine.map(roots[3]!, 3, 0x10, 0x80100, USER_RW);
      expect(machine.request(3, 0x10000n)).toBe(0x80100000n);
      machine.map(guest, 3, 0x80100, 0x80200, USER_RWX, { extraRootBits: 2 });
      machine.command("IOTINVAL.GVMA", fields);
      expect(cached(3, 0x10)).toBe(left);
      expect(cached(1, 0x10)).toBe(true);
    });
  }

  it("with PSCV is illegal", () => {
    const { machine } = build();
    machine.command("IOTINVAL.GVMA", { PSCV: 1 });
    expect(machine.read32(72) & 0x400).toBe(0x400);
  });
});

describe("directory caches (§3.8, §4.1.3)", () => {
  const withProcesses = () => {
    const machine = new Machine();
    machine.enableFaultQueue();
    machine.enableCommandQueue();
    machine.useDirectory(1);
    const directory = machine.makeProcessDirectory(2);
    const old = machine.makeRoot();
    const fresh = machine.makeRoot();
    machine.map(old, 3, 0x10, 0x80100, USER_RW);
    machine.map(fresh, 3, 0x10, 0x80200, USER_RW);
    for (const pid of [1, 2]) machine.setProcess(directory, pid, { fsc_MODE: 8, fsc_PPN: old, PSCID: pid });
    for (const device of [4, 5]) machine.setDevice(device, { PDTV: 1, fsc_MODE: 2, fsc_PPN: directory });
    const goesTo = (device: number, pasid: number) => machine.request(device, 0x10000n, { pasid });
    for (const device of [4, 5]) for (const pid of [1, 2]) expect(goesTo(device, pid)).toBe(0x80100000n);
    // New contexts with PSCIDs of their own, so that no cached translation answers for them.
    for (const pid of [1, 2]) machine.setProcess(directory, pid, { fsc_MODE: 8, fsc_PPN: fresh, PSCID: pid + 10 });
    const stale = () => [4, 5].flatMap((device) => [1, 2].map((pid) => goesTo(device, pid) === 0x80100000n));
    return { machine, stale };
  };

  it("INVAL_PDT takes one process context of one device", () => {
    const { machine, stale } = withProcesses();
    expect(stale()).toEqual([true, true, true, true]);
    machine.command("IODIR.INVAL_PDT", { DV: 1, DID: 4, PID: 2 });
    expect(stale()).toEqual([true, false, true, true]);
  });

  it("INVAL_DDT of a device takes all process contexts of it", () => {
    const { machine, stale } = withProcesses();
    machine.command("IODIR.INVAL_DDT", { DV: 1, DID: 5 });
    expect(stale()).toEqual([true, true, false, false]);
  });

  it("INVAL_DDT of all takes everything, IOTINVAL nothing", () => {
    const { machine, stale } = withProcesses();
    machine.command("IOTINVAL.VMA", {});
    machine.command("IOTINVAL.GVMA", {});
    expect(stale()).toEqual([true, true, true, true]);
    machine.command("IODIR.INVAL_DDT", {});
    expect(stale()).toEqual([false, false, false, false]);
  });

  const illegal: readonly [string, "IODIR.INVAL_DDT" | "IODIR.INVAL_PDT", Fields][] = [
    ["INVAL_PDT without DV", "IODIR.INVAL_PDT", {}],
    ["INVAL_DDT with a PID", "IODIR.INVAL_DDT", { PID: 1 }],
    ["a device_id wider than the directory's mode", "IODIR.INVAL_DDT", { DV: 1, DID: 64 }],
  ];
  for (const [name, command, fields] of illegal) {
    it(`${name} is illegal`, () => {
      const { machine } = withProcesses();
      machine.command(command, fields);
      expect(machine.read32(72) & 0x400).toBe(0x400);
    });
  }

  it("entries that are not valid are never kept: V from 0 to 1 needs no command", () => {
    const { machine } = withProcesses();
    expect(machine.request(9, 0x1000n)).toBeNull();
    machine.setDevice(9, {});
    expect(machine.request(9, 0x1000n)).toBe(0x1000n);
  });

  it("without caches every request sees the tables as they are", () => {
    const machine = new Machine({ caches: { devices: 0, processes: 0, translations: 0, messages: 0 } });
    machine.useDirectory(1);
    machine.setDevice(1, {});
    expect(machine.request(1, 0x1000n)).toBe(0x1000n);
    machine.setDevice(1, { V: 0 });
    expect(machine.request(1, 0x1000n)).toBeNull();
  });

  it("more address spaces than tags are kept for stay correct", () => {
    const machine = new Machine({ caches: { devices: 4, processes: 4, translations: 16 } }, 1024);
    machine.useDirectory(2);
    const root = machine.makeRoot();
    machine.map(root, 3, 0x10, 0x80100, USER_RW);
    for (let device = 0; device < 6000; device++) {
      const place = machine.setDevice(device % 512, { fsc_MODE: 8, fsc_PPN: root, PSCID: device });
      expect(place.frame).toBeGreaterThan(0);
      machine.iommu.caches.invalidateDevice(device % 512);
      expect(machine.request(device % 512, 0x10000n)).toBe(0x80100000n);
    }
  });
});
