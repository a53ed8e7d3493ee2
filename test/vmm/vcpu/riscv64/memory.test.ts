// Loads and stores: widths and extension, misaligned ones in hardware, page crossings, MMIO, access faults.
import { beforeAll, beforeEach, describe, expect, it } from "vitest";
import { Board, RAM } from "./board.ts";
import * as encode from "./encode.ts";

let board: Board;
beforeAll(() => {
  board = new Board();
});
beforeEach(() => {
  board.reset();
  board.port.log.length = 0;
  board.port.during = () => {};
});

const DATA = RAM + 0x2000n;
const DEVICE = 0x1000_0000n;
const LOADS = [
  { name: "lb", funct3: 0, size: 1, extend: (v: bigint) => BigInt.asUintN(64, BigInt.asIntN(8, v)) },
  { name: "lh", funct3: 1, size: 2, extend: (v: bigint) => BigInt.asUintN(64, BigInt.asIntN(16, v)) },
  { name: "lw", funct3: 2, size: 4, extend: (v: bigint) => BigInt.asUintN(64, BigInt.asIntN(32, v)) },
  { name: "ld", funct3: 3, size: 8, extend: (v: bigint) => BigInt.asUintN(64, v) },
  { name: "lbu", funct3: 4, size: 1, extend: (v: bigint) => BigInt.asUintN(8, v) },
  { name: "lhu", funct3: 5, size: 2, extend: (v: bigint) => BigInt.asUintN(16, v) },
  { name: "lwu", funct3: 6, size: 4, extend: (v: bigint) => BigInt.asUintN(32, v) },
];
const STORES = [
  { name: "sb", funct3: 0, size: 1 },
  { name: "sh", funct3: 1, size: 2 },
  { name: "sw", funct3: 2, size: 4 },
  { name: "sd", funct3: 3, size: 8 },
];
const byteAt = (address: bigint): bigint => (address * 0x9dn + 0x5bn) & 0xffn;
function fill(): void {
  for (let at = DATA - 64n; at < DATA + 0x1040n; at++) board.ram.setUint8(Number(at - RAM), Number(byteAt(at)));
}
function bytes(address: bigint, size: number): bigint {
  let value = 0n;
  for (let n = 0; n < size; n++) value |= byteAt(address + BigInt(n)) << BigInt(8 * n);
  return value;
}

describe("loads from RAM", () => {
  it.each(LOADS)("$name extends what it reads at every alignment, also across a page", ({ funct3, size, extend }) => {
    fill();
    board.place(RAM, encode.load(funct3, 7, 5, -3));
    for (const base of [DATA, DATA + 0x1000n - 8n]) {
      for (let n = 0n; n < 16n; n++) {
        for (let twice = 0; twice < 2; twice++) {
          board.pc = RAM;
          board.setX(5, base + n + 3n);
          board.run(1);
          expect(board.x(7).toString(16), `at ${base + n}`).toBe(extend(bytes(base + n, size)).toString(16));
        }
      }
    }
  });

  it.each(LOADS)("$name may load into its own base register and into x0", ({ funct3, size, extend }) => {
    fill();
    board.setX(5, DATA);
    board.setX(6, DATA);
    board.execute(encode.load(funct3, 5, 5, 0), encode.load(funct3, 0, 6, 0));
    expect(board.x(5)).toBe(extend(bytes(DATA, size)));
    expect(board.x(0)).toBe(0n);
    expect(board.pc).toBe(RAM + 8n);
  });
});

describe("stores to RAM", () => {
  it.each(STORES)("$name writes its bytes and no others at every alignment, also across a page", ({ funct3, size }) => {
    const value = 0x8877665544332211n;
    for (const base of [DATA, DATA + 0x1000n - 8n]) {
      for (let n = 0n; n < 16n; n++) {
        fill();
        board.setX(5, base + n - 7n);
        board.setX(6, value);
        board.execute(encode.store(funct3, 5, 6, 7));
        for (let at = base - 8n; at < base + 32n; at++) {
          const inside = at >= base + n && at < base + n + BigInt(size);
          const expected = inside ? (value >> (8n * (at - base - n))) & 0xffn : byteAt(at);
          expect(board.ram.getUint8(Number(at - RAM)), `byte ${at} of a store at ${base + n}`).toBe(Number(expected));
        }
      }
    }
  });
});

describe("the ends of RAM", () => {
  const END = RAM + (1n << 20n);
  it("the last bytes can be accessed; a load that reaches past them is an access fault at the first byte outside", () => {
    board.setX(5, END - 8n);
    board.setX(6, 42n);
    board.execute(encode.sd(6, 5, 0), encode.ld(7, 5, 0), encode.ld(8, 5, 1));
    expect(board.x(7)).toBe(42n);
    expect(board.trap).toEqual({ cause: 5n, value: END, pc: RAM + 8n });
  });

  it("a store across the end faults and writes nothing", () => {
    board.store64(END - 8n, 0n);
    board.setX(5, END - 4n);
    board.setX(6, -1n);
    board.execute(encode.sd(6, 5, 0));
    expect(board.trap).toEqual({ cause: 7n, value: END, pc: RAM });
    expect(board.load64(END - 8n)).toBe(0n);
  });

  it("a fetch from outside RAM is an access fault", () => {
    board.setX(5, DEVICE);
    board.execute(encode.jalr(0, 5, 0), encode.NOP);
    expect(board.trap).toEqual({ cause: 1n, value: DEVICE, pc: DEVICE });
    expect(board.port.log).toEqual([]);
  });
});

describe("MMIO", () => {
  it.each(LOADS)("$name reads the device once, at its width", ({ funct3, size, extend }) => {
    board.port.answer = 0xfedcba9876543280n;
    board.setX(5, DEVICE + 0x10n);
    board.execute(encode.load(funct3, 7, 5, 8));
    expect(board.port.log).toEqual([{ kind: "load", address: 0x10000018, size }]);
    expect(board.x(7)).toBe(extend(board.port.answer));
    expect(board.pc).toBe(RAM + 4n);
  });

  it.each(STORES)("$name writes the device once, at its width", ({ funct3, size }) => {
    board.setX(5, DEVICE);
    board.setX(6, 0x8877665544332211n);
    board.execute(encode.store(funct3, 5, 6, 8));
    const value = BigInt.asUintN(8 * size, 0x8877665544332211n);
    expect(board.port.log).toEqual([{ kind: "store", address: 0x10000008, size, value }]);
  });

  it("a load into x0 still reads the device", () => {
    board.setX(5, DEVICE);
    board.execute(encode.load(2, 0, 5, 0));
    expect(board.port.log.length).toBe(1);
    expect(board.pc).toBe(RAM + 4n);
  });

  it("floating-point loads and stores reach the device", () => {
    board.port.answer = 0x3ff00000_40000000n;
    board.setX(5, DEVICE);
    board.execute(
      encode.i(0x07, 2, 1, 5, 0),
      encode.i(0x07, 3, 2, 5, 0),
      encode.s(0x27, 2, 5, 1, 0),
      encode.s(0x27, 3, 5, 2, 0),
    );
    expect(board.f(1)).toBe(0xffffffff_40000000n);
    expect(board.f(2)).toBe(0x3ff00000_40000000n);
    expect(board.port.log.map((it) => [it.kind, it.size, it.value])).toEqual([
      ["load", 4, undefined],
      ["load", 8, undefined],
      ["store", 4, 0x40000000n],
      ["store", 8, 0x3ff00000_40000000n],
    ]);
  });

  it("addresses above 4 GiB arrive whole, those from 2^53 are access faults", () => {
    board.setX(5, (1n << 53n) - 8n);
    board.execute(encode.ld(7, 5, 0), encode.ld(7, 5, 8));
    expect(board.port.log).toEqual([{ kind: "load", address: 2 ** 53 - 8, size: 8 }]);
    expect(board.trap).toEqual({ cause: 5n, value: 1n << 53n, pc: RAM + 4n });
  });

  it("misaligned accesses to a device are access faults and do not reach it", () => {
    board.setX(5, DEVICE + 1n);
    board.execute(encode.load(1, 7, 5, 0));
    expect(board.trap).toEqual({ cause: 5n, value: DEVICE + 1n, pc: RAM });
    board.reset();
    board.setX(5, DEVICE + 4n);
    board.execute(encode.sd(6, 5, 0));
    expect(board.trap).toEqual({ cause: 7n, value: DEVICE + 4n, pc: RAM });
    expect(board.port.log).toEqual([]);
  });

  it("atomics on a device are access faults", () => {
    for (const [code, cause] of [
      [encode.amo(2, false, 7, 5, 0), 5n],
      [encode.amo(3, false, 7, 5, 6), 7n],
      [encode.amo(0, true, 7, 5, 6), 7n],
    ] as const) {
      board.reset();
      board.setX(5, DEVICE);
      board.execute(code);
      expect(board.trap).toEqual({ cause, value: DEVICE, pc: RAM });
    }
  });
});

describe("cache-block operations", () => {
  const cbo = (operation: number): number => encode.i(0x0f, 2, 0, 5, operation);
  it("cbo.zero clears the 64-byte block around its address and nothing else", () => {
    fill();
    board.setX(5, DATA + 0x7fn);
    board.execute(cbo(4));
    for (let at = DATA; at < DATA + 0x100n; at++) {
      const inside = at >= DATA + 0x40n && at < DATA + 0x80n;
      expect(board.ram.getUint8(Number(at - RAM))).toBe(inside ? 0 : Number(byteAt(at)));
    }
  });

  it("cbo.zero on a device is a store access fault", () => {
    board.setX(5, DEVICE + 8n);
    board.execute(cbo(4));
    expect(board.trap).toEqual({ cause: 7n, value: DEVICE + 8n, pc: RAM });
  });

  it.each([0, 1, 2])("cbo %d (inval, clean, flush) leaves memory alone", (operation) => {
    fill();
    board.setX(5, DATA);
    board.execute(cbo(operation));
    expect(board.trap).toBeNull();
    for (let at = DATA; at < DATA + 64n; at++) expect(board.ram.getUint8(Number(at - RAM))).toBe(Number(byteAt(at)));
  });

  it.each([
    [0, 0x10n],
    [1, 0x40n],
    [2, 0x40n],
    [4, 0x80n],
  ])("cbo %d in user mode needs its senvcfg bit", (operation, bit) => {
    for (const senvcfg of [0n, bit]) {
      board.reset();
      board.write("mode", 0n);
      board.write("senvcfg", senvcfg);
      board.setX(5, DATA);
      board.execute(cbo(operation));
      expect(board.trap?.cause ?? null).toBe(senvcfg === 0n ? 2n : null);
    }
  });

  it("prefetches are hints", () => {
    for (const kind of [0, 1, 3]) board.execute(encode.s(0x13, 6, 5, kind, 0));
    expect(board.trap).toBeNull();
  });
});
