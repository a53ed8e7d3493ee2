import { describe, expect, it } from "vitest";
import { A, D, G, Machine, R, READ, U, USER_RW, USER_RWX, V, W, WRITE, X } from "./machine.ts";

const SV = { 39: { mode: 8, levels: 3 }, 48: { mode: 9, levels: 4 }, 57: { mode: 10, levels: 5 } } as const;

describe("requests before any directory (§3.3 steps 1 and 2)", () => {
  it("are refused with cause 256 while ddtp is Off", () => {
    const machine = new Machine();
    machine.enableFaultQueue();
    expect(machine.request(0x10, 0x1000n)).toBeNull();
    expect(machine.takeFaults()).toEqual([
      { cause: 256, deviceId: 0x10, processId: -1, privileged: false, ttyp: 2, iotval: 0x1000n, iotval2: 0n },
    ]);
  });

  it("pass unchanged in Bare mode, except translated ones", () => {
    const machine = new Machine({ resetMode: "bare" });
    machine.enableFaultQueue();
    expect(machine.request(0x10, 0xffff_ffff_ffff_f123n)).toBe(0xffff_ffff_ffff_f123n);
    expect(machine.request(0x10, 0x1000n, { translated: true, access: WRITE })).toBeNull();
    expect(machine.takeFaults().map((fault) => [fault.cause, fault.ttyp])).toEqual([[260, 7]]);
  });
});

for (const size of [39, 48, 57] as const) {
  describe(`a first stage of Sv${size}`, () => {
    const { mode, levels } = SV[size];
    const build = () => {
      const machine = new Machine();
      machine.enableFaultQueue();
      machine.useDirectory(3);
      const root = machine.makeRoot();
      machine.setDevice(0x12345, { fsc_MODE: mode, fsc_PPN: root, PSCID: 7 });
      return { machine, root };
    };

    it("maps a 4 KiB page", () => {
      const { machine, root } = build();
      machine.map(root, levels, 0x12345, 0x87654, USER_RW);
      expect(machine.request(0x12345, 0x12345678n)).toBe(0x87654678n);
    });

    it("maps superpages of every level, whole", () => {
      const { machine, root } = build();
      for (let level = 1; level < levels; level++) {
        const pages = 2 ** (9 * level);
        machine.map(root, levels, pages * (level === levels - 1 ? 3 : 5), pages * 2, USER_RW, { level });
        const within = pages - 1;
        expect(
          machine.request(0x12345, (BigInt(pages * (level === levels - 1 ? 3 : 5) + within) << 12n) | 0xabcn),
        ).toBe((BigInt(pages * 2 + within) << 12n) | 0xabcn);
      }
    });

    it("refuses addresses that are not canonical with a page fault of the request's kind", () => {
      const { machine, root } = build();
      machine.map(root, levels, 0, 0x87654, USER_RW);
      const bad = 1n << BigInt(size - 1);
      expect(machine.request(0x12345, bad, { access: READ })).toBeNull();
      expect(machine.request(0x12345, bad, { access: WRITE })).toBeNull();
      expect(machine.request(0x12345, bad, { access: 4 })).toBeNull();
      expect(machine.takeFaults().map((fault) => [fault.cause, fault.iotval, fault.iotval2])).toEqual([
        [13, bad, 0n],
        [15, bad, 0n],
        [12, bad, 0n],
      ]);
    });

    it("reaches the upper half of the address space", () => {
      const { machine, root } = build();
      const top = 0xffff_ffff_ffff_f000n;
      machine.map(root, levels, Number((top >> 12n) & ((1n << BigInt(size - 12)) - 1n)), 0x87654, USER_RW);
      expect(machine.request(0x12345, top | 0x10n)).toBe(0x87654010n);
    });
  });
}

describe("leaf rules of the privileged architecture", () => {
  const build = () => {
    const machine = new Machine({ caches: { translations: 0 } });
    machine.enableFaultQueue();
    machine.useDirectory(1);
    const root = machine.makeRoot();
    machine.setDevice(1, { fsc_MODE: 8, fsc_PPN: root, PSCID: 1 });
    const place = machine.map(root, 3, 0x400, 0x87654, USER_RWX);
    const write = (entry: bigint) => machine.store(place.frame, place.offset, entry);
    return { machine, write, root };
  };
  const frame = 0x87654n << 10n;
  const cases: readonly [string, bigint, number, number | null][] = [
    ["V = 0 faults a read", frame | BigInt(USER_RW & ~V), READ, 13],
    ["R = 0 with W = 1 is reserved", frame | BigInt(V | W | U | A | D), READ, 13],
    ["xwr = 110 is reserved", frame | BigInt(V | W | X | U | A | D), 4, 12],
    ["a read needs R", frame | BigInt(V | X | U | A | D), READ, 13],
    ["a write needs W", frame | BigInt(V | R | X | U | A | D), WRITE, 15],
    ["execution needs X", frame | BigInt(V | R | W | U | A | D), 4, 12],
    ["execution needs X only", frame | BigInt(V | X | U | A), 4, null],
    ["U = 0 refuses a user read", frame | BigInt(V | R | A), READ, 13],
    ["A = 0 faults without SADE", frame | BigInt(V | R | W | U | D), READ, 13],
    ["D = 0 faults a write without SADE", frame | BigInt(V | R | W | U | A), WRITE, 15],
    ["D = 0 does not matter to a read", frame | BigInt(V | R | W | U | A), READ, null],
    ["bit 54 is reserved", frame | BigInt(USER_RW) | (1n << 54n), READ, 13],
    ["bit 58 is reserved", frame | BigInt(USER_RW) | (1n << 58n), READ, 13],
    ["bits 60:59 are software's with Svrsw60t59b", frame | BigInt(USER_RW) | (3n << 59n), READ, null],
    ["PBMT = 3 is reserved", frame | BigInt(USER_RW) | (3n << 61n), READ, 13],
    ["PBMT = 1 is a memory type", frame | BigInt(USER_RW) | (1n << 61n), READ, null],
    ["N = 1 with PPN[3:0] not 1000 is reserved", frame | BigInt(USER_RW) | (1n << 63n), READ, 13],
    ["G is no right", frame | BigInt(USER_RW | G), READ, null],
  ];
  for (const [name, entry, access, cause] of cases) {
    it(name, () => {
      const { machine, write } = build();
      write(entry);
      const result = machine.request(1, 0x400008n, { access });
      const faults = machine.takeFaults();
      if (cause === null) {
        expect(result).toBe(0x87654008n);
        expect(faults).toEqual([]);
      } else {
        expect(result).toBeNull();
        expect(faults.map((fault) => fault.cause)).toEqual([cause]);
      }
    });
  }

  it("a 64 KiB NAPOT range maps all of its sixteen pages", () => {
    const { machine, root } = build();
    for (let i = 0; i < 16; i++) {
      machine.map(root, 3, 0x510 + i, 0x87658, (1n << 63n) | BigInt(USER_RW));
    }
    expect(machine.request(1, 0x510_000n)).toBe(0x87650000n);
    expect(machine.request(1, 0x51f_abcn)).toBe(0x8765fabcn);
  });

  it("a pointer with A, D or U set faults", () => {
    for (const bit of [A, D, U]) {
      const { machine, root } = build();
      const entry = machine.load(root, 0);
      machine.store(root, 0, entry | BigInt(bit));
      expect(machine.request(1, 0x400000n)).toBeNull();
      expect(machine.takeFaults().map((fault) => fault.cause)).toEqual([13]);
    }
  });

  it("a misaligned superpage faults", () => {
    const { machine, root } = build();
    machine.map(root, 3, 0x800, 0x80001, USER_RW, { level: 1 });
    expect(machine.request(1, 0x800000n)).toBeNull();
    expect(machine.takeFaults().map((fault) => fault.cause)).toEqual([13]);
  });
});

for (const first of [39, 48, 57] as const) {
  for (const second of [39, 48, 57] as const) {
    describe(`Sv${first} over Sv${second}x4`, () => {
      const build = () => {
        const machine = new Machine({}, 2048);
        machine.enableFaultQueue();
        machine.useDirectory(3);
        const guest = machine.makeSecondStageRoot();
        machine.mapMemoryOneToOne(guest, SV[second].levels);
        const root = machine.makeRoot();
        machine.setDevice(5, {
          fsc_MODE: SV[first].mode,
          fsc_PPN: root,
          PSCID: 7,
          iohgatp_MODE: SV[second].mode,
          iohgatp_PPN: guest,
          GSCID: 3,
        });
        return { machine, root, guest };
      };

      it("goes through both stages", () => {
        const { machine, root, guest } = build();
        machine.map(root, SV[first].levels, 0x1234, 0x40000, USER_RW);
        machine.map(guest, SV[second].levels, 0x40000, 0x80777, USER_RW, { extraRootBits: 2 });
        expect(machine.request(5, 0x1234567n)).toBe(0x80777567n);
      });

      it("reports a second-stage fault of the access itself with the guest address in iotval2", () => {
        const { machine, root } = build();
        machine.map(root, SV[first].levels, 0x1234, 0x40000, USER_RW);
        expect(machine.request(5, 0x1234567n, { access: WRITE })).toBeNull();
        expect(machine.takeFaults()).toEqual([
          {
            cause: 23,
            deviceId: 5,
            processId: -1,
            privileged: false,
            ttyp: 3,
            iotval: 0x1234567n,
            iotval2: 0x40000564n,
          },
        ]);
      });

      it("reports a second-stage fault of a page-table access with bit 0 of iotval2 set", () => {
        const { machine, root } = build();
        machine.store(root, 0, (0x40000n << 10n) | 1n);
        expect(machine.request(5, 0x8n, { access: WRITE })).toBeNull();
        expect(machine.takeFaults()).toEqual([
          { cause: 23, deviceId: 5, processId: -1, privileged: false, ttyp: 3, iotval: 8n, iotval2: 0x40000001n },
        ]);
      });
    });
  }
}

describe("process directories (§3.3.2)", () => {
  for (const mode of [1, 2, 3] as const) {
    it(`locate a process context in a directory of ${mode} level(s)`, () => {
      const machine = new Machine();
      machine.enableFaultQueue();
      machine.useDirectory(2);
      const directory = machine.makeProcessDirectory(mode);
      const root = machine.makeRoot();
      machine.map(root, 3, 0x77, 0x80999, USER_RW);
      const pasid = [0, 0xab, 0x1abcd, 0xfabcd][mode]!;
      machine.setDevice(9, { PDTV: 1, fsc_MODE: mode, fsc_PPN: directory });
      machine.setProcess(directory, pasid, { fsc_MODE: 8, fsc_PPN: root, PSCID: 44 });
      expect(machine.request(9, 0x77010n, { pasid })).toBe(0x80999010n);
      expect(machine.request(9, 0x77010n)).toBe(0x77010n);
      expect(machine.request(9, 0x77010n, { pasid, privileged: true })).toBeNull();
      expect(machine.takeFaults()).toEqual([
        { cause: 260, deviceId: 9, processId: pasid, privileged: true, ttyp: 2, iotval: 0x77010n, iotval2: 0n },
      ]);
    });
  }
});
