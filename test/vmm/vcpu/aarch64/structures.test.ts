// LD1…LD4 and ST1…ST4 of multiple structures (DDI 0487, C7.2.206 and following): element by element as the manual's pseudocode has it, with the page in the TLB, not in it, across a
// page and at a device.
import { describe, expect, it } from "vitest";
import { Board, RAM } from "./board.ts";

const AT = RAM + 0x4100n;
const FIRST = 30; // registers wrap from 31 to 0

/** Name, opcode, registers, elements of a structure. */
const FORMS: readonly (readonly [string, number, number, number])[] = [
  ["1 of 4", 2, 4, 1],
  ["1 of 3", 6, 3, 1],
  ["1 of 2", 10, 2, 1],
  ["1 of 1", 7, 1, 1],
  ["2", 8, 2, 2],
  ["3", 4, 3, 3],
  ["4", 0, 4, 4],
];
const CASES = FORMS.flatMap(([name, opcode, registers, elements]) =>
  [0, 1, 2, 3].flatMap((size) =>
    [0, 1]
      .filter((q) => !(elements > 1 && size === 3 && q === 0))
      .map((q) => ({ name: `${name}, ${8 << size}-bit, Q ${q}`, opcode, registers, elements, size, q })),
  ),
);

function encoding({ opcode, size, q }: (typeof CASES)[number], load: boolean): number {
  return ((q << 30) | 0x0c000000 | (load ? 1 << 22 : 0) | (opcode << 12) | (size << 10) | (1 << 5) | FIRST) >>> 0;
}

/** For each element in memory its register and its byte there. */
function places({ registers, elements, size, q }: (typeof CASES)[number]): [register: number, byte: number][] {
  const bytes = 1 << size;
  const count = (8 << q) / bytes;
  const list: [number, number][] = [];
  for (let group = 0; group < registers; group += elements) {
    for (let i = 0; i < count; i++) {
      for (let s = 0; s < elements; s++) list.push([(FIRST + group + s) % 32, i * bytes]);
    }
  }
  return list;
}

const byteOf = (value: bigint, at: number): number => Number((value >> BigInt(8 * at)) & 0xffn);

function prepared(address: bigint): Board {
  const board = new Board({ translate: false });
  board.write("cpacr_el1", 3n << 20n);
  for (let i = 0; i < 0x4000; i++) board.core.ram[0x4000 + i] = (i * 13 + (i >> 8)) & 255;
  for (let n = 0; n < 32; n++) {
    let value = 0n;
    for (let byte = 0; byte < 16; byte++) value |= BigInt((n * 16 + byte * 7) & 255) << BigInt(8 * byte);
    board.core.setV(0, n, value);
  }
  board.setX(1, address);
  return board;
}

describe.each([
  ["a page that is met first", AT, false],
  ["a page that is known", AT, true],
  ["the end of a page", RAM + 0x4ff9n, true],
])("structures at %s", (_name, address, known) => {
  const WARM = [0xf9400023, 0xf9000023]; // ldr x3, [x1]; str x3, [x1]

  it.each(CASES)("loads $name", (form) => {
    const board = prepared(address);
    const before = board.core.ram.slice();
    if (known) board.execute(...WARM);
    board.execute(encoding(form, true));
    const want = new Map<number, bigint>();
    const bytes = 1 << form.size;
    places(form).forEach(([register, at], index) => {
      let value = want.get(register) ?? 0n;
      for (let b = 0; b < bytes; b++)
        value |= BigInt(before[Number(address - RAM) + index * bytes + b]!) << BigInt(8 * (at + b));
      want.set(register, value);
    });
    for (const [register, value] of want) expect([register, board.core.v(0, register)]).toEqual([register, value]);
  });

  it.each(CASES)("stores $name", (form) => {
    const board = prepared(address);
    if (known) board.execute(...WARM);
    board.execute(encoding(form, false));
    const bytes = 1 << form.size;
    const want = places(form).flatMap(([register, at]) =>
      Array.from({ length: bytes }, (_, b) => byteOf(board.core.v(0, register), at + b)),
    );
    const start = Number(address - RAM);
    expect([...board.core.ram.subarray(start, start + want.length)]).toEqual(want);
  });
});

describe("structures at a device", () => {
  it("are one access an element, in order, and the base moves once", () => {
    const board = prepared(0x1000_0000n);
    board.execute(0x0c9f403e); // st3 {v30.8b, v31.8b, v0.8b}, [x1], #24
    expect(board.port.log).toHaveLength(24);
    expect(board.port.log.slice(0, 3).map(({ address, size }) => [address, size])).toEqual([
      [0x1000_0000, 1],
      [0x1000_0001, 1],
      [0x1000_0002, 1],
    ]);
    expect(board.x(1)).toBe(0x1000_0018n);
  });
});
