import { describe, expect, it } from "vitest";
import { A, D, Machine, R, READ, U, USER_RW, USER_RWX, V, W, WRITE } from "./machine.ts";

const PLAIN = V | R | W | U;

describe("hardware updates of A and D (§3.4)", () => {
  const single = (fields = {}) => {
    const machine = new Machine();
    machine.enableFaultQueue();
    machine.useDirectory(1);
    const root = machine.makeRoot();
    machine.setDevice(1, { fsc_MODE: 8, fsc_PPN: root, SADE: 1, ...fields });
    return { machine, root };
  };

  it("a read sets A, the first write D, the second finds both", () => {
    const { machine, root } = single();
    const place = machine.map(root, 3, 0x10, 0x80100, PLAIN);
    expect(machine.request(1, 0x10000n, { access: READ })).toBe(0x80100000n);
    expect(machine.flagsOf(place)).toBe(PLAIN | A);
    expect(machine.request(1, 0x10000n, { access: WRITE })).toBe(0x80100000n);
    expect(machine.flagsOf(place)).toBe(PLAIN | A | D);
  });

  it("a write that is not allowed sets nothing", () => {
    const { machine, root } = single();
    const place = machine.map(root, 3, 0x10, 0x80100, V | R | U);
    expect(machine.request(1, 0x10000n, { access: WRITE })).toBeNull();
    expect(machine.flagsOf(place)).toBe(V | R | U);
    expect(machine.takeFaults().map((fault) => fault.cause)).toEqual([15]);
  });

  it("a NAPOT entry and a superpage are marked too", () => {
    const { machine, root } = single();
    const napot = machine.map(root, 3, 0x13, 0x80108, (1n << 63n) | BigInt(PLAIN));
    const large = machine.map(root, 3, 0x400, 0x80200, PLAIN, { level: 1 });
    expect(machine.request(1, 0x13000n, { access: WRITE })).toBe(0x80103000n);
    expect(machine.request(1, 0x423000n, { access: WRITE })).toBe(0x80223000n);
    expect([machine.flagsOf(napot), machine.flagsOf(large)]).toEqual([PLAIN | A | D, PLAIN | A | D]);
  });

  it("an entry that cannot be written is an access fault of the request's kind", () => {
    const { machine, root } = single();
    const place = machine.map(root, 3, 0x10, 0x80100, PLAIN);
    machine.inject(place.frame, place.offset, 1, true);
    expect(machine.request(1, 0x10000n, { access: READ })).toBeNull();
    expect(machine.request(1, 0x10000n, { access: WRITE })).toBeNull();
    expect(machine.takeFaults().map((fault) => fault.cause)).toEqual([5, 7]);
  });

  it("an entry that changes under the update is read again", () => {
    const { machine, root } = single();
    const place = machine.map(root, 3, 0x10, 0x80100, PLAIN);
    const exchange = machine.memory.compareExchange64.bind(machine.memory);
    let races = 0;
    machine.memory.compareExchange64 = (...request) => {
      if (races++ === 0) machine.store(place.frame, place.offset, (0x80200n << 10n) | BigInt(PLAIN));
      return exchange(...request);
    };
    expect(machine.request(1, 0x10000n, { access: WRITE })).toBe(0x80200000n);
    expect(machine.flagsOf(place)).toBe(PLAIN | A | D);
    expect(races).toBe(2);
  });

  it("memory that never holds still ends in an access fault", () => {
    const { machine, root } = single();
    const place = machine.map(root, 3, 0x10, 0x80100, PLAIN);
    const exchange = machine.memory.compareExchange64.bind(machine.memory);
    let value = 0n;
    machine.memory.compareExchange64 = (...request) => {
      machine.store(place.frame, place.offset, ((0x80200n + (value++ & 1n)) << 10n) | BigInt(PLAIN));
      return exchange(...request);
    };
    expect(machine.request(1, 0x10000n, { access: READ })).toBeNull();
    expect(machine.takeFaults().map((fault) => fault.cause)).toEqual([5]);
  });

  const nested = (fields: object, memoryFlags: number) => {
    const machine = new Machine({}, 1024);
    machine.enableFaultQueue();
    machine.useDirectory(1);
    const guest = machine.makeSecondStageRoot();
    machine.mapMemoryOneToOne(guest, 3, memoryFlags);
    const root = machine.makeRoot();
    const place = machine.map(root, 3, 0x10, 0x80100, PLAIN);
    machine.setDevice(1, { fsc_MODE: 8, fsc_PPN: root, iohgatp_MODE: 8, iohgatp_PPN: guest, GSCID: 1, ...fields });
    const guestEntry = (frame: number) => {
      // One page of last-level entries each 512 frames: walk down as the hardware would.
      let table = guest;
      for (const shift of [18, 9]) {
        const index = (frame >> shift) & (shift === 18 ? 0x7ff : 0x1ff);
        table = Number((machine.load(table + (index >> 9), (index & 511) * 8) >> 10n) & ((1n << 44n) - 1n));
      }
      return { frame: table, offset: (frame & 511) * 8 };
    };
    return { machine, place, guestEntry };
  };

  it("GADE marks the second-stage pages of the tables read and of the data, dirty where something is written", () => {
    const { machine, place, guestEntry } = nested({ SADE: 1, GADE: 1 }, V | R | W | U);
    expect(machine.request(1, 0x10000n, { access: READ })).toBe(0x80100000n);
    expect(machine.flagsOf(place)).toBe(PLAIN | A);
    // The page table's page was written (A was set in it), the data page was read.
    expect(machine.flagsOf(guestEntry(place.frame)) & (A | D)).toBe(A | D);
    expect(machine.flagsOf(guestEntry(0x80100)) & (A | D)).toBe(A);
  });

  it("setting A in a page table that the second stage lets nobody write is a guest-page fault with both flags", () => {
    const { machine, place } = nested({ SADE: 1 }, V | R | U | A);
    expect(machine.request(1, 0x10008n, { access: READ })).toBeNull();
    const table = (BigInt(place.frame) << 12n) | BigInt(place.offset);
    expect(machine.takeFaults().map((fault) => [fault.cause, fault.iotval2])).toEqual([[21, table | 3n]]);
    expect(machine.flagsOf(place)).toBe(PLAIN);
  });

  it("a plain read of a page table needs no D in the second stage, with SADE set or not", () => {
    for (const SADE of [0, 1]) {
      const { machine, place } = nested({ SADE }, V | R | W | U | A);
      machine.store(place.frame, place.offset, machine.pte(place) | BigInt(A | D));
      expect(machine.request(1, 0x10000n, { access: READ })).toBe(0x80100000n);
    }
  });

  it("a cached translation of a clean page does not let a write through unmarked", () => {
    const { machine, place, guestEntry } = nested({ SADE: 1, GADE: 1 }, V | R | W | U);
    machine.request(1, 0x10000n, { access: READ });
    expect(machine.request(1, 0x10000n, { access: WRITE })).toBe(0x80100000n);
    expect(machine.flagsOf(place)).toBe(PLAIN | A | D);
    expect(machine.flagsOf(guestEntry(0x80100)) & D).toBe(D);
  });
});

describe("supervisor requests (§3.2.3)", () => {
  const build = (fields: object) => {
    const machine = new Machine();
    machine.enableFaultQueue();
    machine.useDirectory(1);
    const directory = machine.makeProcessDirectory(1);
    const root = machine.makeRoot();
    machine.map(root, 3, 0x10, 0x80100, USER_RWX);
    machine.map(root, 3, 0x11, 0x80101, USER_RWX & ~U);
    machine.setProcess(directory, 4, { ENS: 1, fsc_MODE: 8, fsc_PPN: root, PSCID: 1, ...fields });
    machine.setDevice(1, { PDTV: 1, fsc_MODE: 1, fsc_PPN: directory });
    const causes = (pfn: number, privileged: boolean, access: number): number => {
      const address = BigInt(pfn) << 12n;
      const results = [0, 1].map(() => machine.request(1, address, { pasid: 4, privileged, access }) !== null);
      // The second try may find a cached translation: it must not decide otherwise.
      expect(results[0]).toBe(results[1]);
      return results[0] ? 0 : machine.takeFaults()[0]!.cause;
    };
    return { machine, causes };
  };

  it("without SUM reach supervisor pages only", () => {
    const { causes } = build({});
    expect([causes(0x11, true, READ), causes(0x11, true, 4), causes(0x10, true, READ), causes(0x10, true, 4)]).toEqual([
      0, 0, 13, 12,
    ]);
    expect([causes(0x10, false, READ), causes(0x10, false, 4), causes(0x11, false, WRITE)]).toEqual([0, 0, 15]);
  });

  it("with SUM read and write user pages, but never execute them", () => {
    const { causes } = build({ SUM: 1 });
    expect([causes(0x10, true, READ), causes(0x10, true, WRITE), causes(0x10, true, 4)]).toEqual([0, 0, 12]);
  });
});

describe("byte order (§3.10)", () => {
  const swap = (value: bigint): bigint => {
    let result = 0n;
    for (let i = 0n; i < 8n; i++) result |= ((value >> (8n * i)) & 0xffn) << (8n * (7n - i));
    return result;
  };
  const swapPage = (machine: Machine, frame: number) => {
    for (let offset = 0; offset < 4096; offset += 8) machine.store(frame, offset, swap(machine.load(frame, offset)));
  };

  it("SBE swaps process directories and first-stage tables, fctl.BE the rest and the queues", () => {
    const machine = new Machine({ capabilities: { END: true }, bigEndian: true });
    machine.enableFaultQueue();
    const directory = machine.useDirectory(1);
    const root = machine.makeRoot();
    const place = machine.map(root, 3, 0x10, 0x80100, USER_RW);
    const middle = Number((machine.load(root, 0) >> 10n) & 0xfffffffn);
    machine.setDevice(1, { fsc_MODE: 8, fsc_PPN: root });
    swapPage(machine, directory);
    expect(machine.request(1, 0x10000n)).toBe(0x80100000n);
    // The same tables big-endian, with SBE.
    machine.setDevice(2, { fsc_MODE: 8, fsc_PPN: root, SBE: 1 });
    const context = 2 * 64;
    for (let i = 0; i < 64; i += 8) {
      machine.store(directory, context + i, swap(machine.load(directory, context + i)));
    }
    for (const frame of [root, middle, place.frame]) swapPage(machine, frame);
    expect(machine.request(2, 0x10000n)).toBe(0x80100000n);
    machine.request(2, 0x99000n);
    const ring = Number((machine.read64(40) >> 10n) & ((1n << 44n) - 1n));
    expect(swap(machine.load(ring, 0))).toBe(13n | (2n << 34n) | (2n << 40n));
    expect(swap(machine.load(ring, 16))).toBe(0x99000n);
  });
});

describe("Sv32 and Sv32x4", () => {
  const narrow = { capabilities: { Sv32: true, Sv32x4: true }, gxl: true, gxlWritable: true };
  const entry32 = (machine: Machine, frame: number, index: number, target: number, flags: number) => {
    const offset = index * 4;
    const old = machine.load(frame, offset & ~7);
    const value = BigInt(((target << 10) | flags) >>> 0);
    const word = (offset & 4) === 0 ? (old & ~0xffffffffn) | value : (old & 0xffffffffn) | (value << 32n);
    machine.store(frame, offset & ~7, word);
  };

  it("translate through two levels of 4-byte entries in both stages, 4 MiB pages too", () => {
    const machine = new Machine(narrow);
    machine.enableFaultQueue();
    machine.useDirectory(1);
    const guest = machine.makeSecondStageRoot();
    // Guest-physical 0x80000000 .. +4 MiB, where the tables are, one to one; and GPA 0x40000000 as a 4 MiB page.
    entry32(machine, guest, 0x80000 >> 10, 0x80000, USER_RWX);
    entry32(machine, guest, 0x40000 >> 10, 0x80c00, USER_RWX);
    const root = machine.makeRoot();
    const leaf = machine.allocate();
    entry32(machine, root, 3, leaf, V);
    entry32(machine, leaf, 5, 0x40123, USER_RW);
    entry32(machine, root, 4, 0x40000, USER_RW);
    machine.setDevice(1, { SXL: 1, fsc_MODE: 8, fsc_PPN: root, iohgatp_MODE: 8, iohgatp_PPN: guest, GSCID: 1 });
    expect(machine.request(1, 0x00c05678n)).toBe(0x80d23678n);
    expect(machine.request(1, 0x01012345n)).toBe(0x80c12345n);
    expect(machine.request(1, 0x1_0000_0000n)).toBeNull();
    expect(machine.takeFaults().map((fault) => fault.cause)).toEqual([13]);
  });

  it("with a Bare first stage, guest-physical addresses above 34 bits are a guest-page fault", () => {
    const machine = new Machine(narrow);
    machine.enableFaultQueue();
    machine.useDirectory(1);
    machine.setDevice(1, { SXL: 1, iohgatp_MODE: 8, iohgatp_PPN: machine.makeSecondStageRoot() });
    expect(machine.request(1, 1n << 34n)).toBeNull();
    expect(machine.takeFaults().map((fault) => [fault.cause, fault.iotval2])).toEqual([[21, 1n << 34n]]);
  });

  it("set A and D in one 4-byte entry and leave its neighbour alone", () => {
    const machine = new Machine(narrow);
    machine.enableFaultQueue();
    machine.useDirectory(1);
    const root = machine.makeRoot();
    const leaf = machine.allocate();
    entry32(machine, root, 0, leaf, V);
    entry32(machine, leaf, 0, 0x80100, PLAIN);
    entry32(machine, leaf, 1, 0x80101, PLAIN);
    machine.setDevice(1, { SXL: 1, SADE: 1, fsc_MODE: 8, fsc_PPN: root });
    expect(machine.request(1, 0x1000n, { access: WRITE })).toBe(0x80101000n);
    expect(machine.load(leaf, 0)).toBe(
      (BigInt(((0x80101 << 10) | PLAIN | A | D) >>> 0) << 32n) | BigInt(((0x80100 << 10) | PLAIN) >>> 0),
    );
  });
});
