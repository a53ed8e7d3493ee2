// Instructions per second of the RV64 vCPU, on three kinds of code:
//   tight      a loop of a dozen instructions: arithmetic, a load, a store, a branch
//   footprint  4096 functions of about 40 instructions called in a pseudo-random order through a table: 600 KiB of code, few loops
//   float      a loop of binary64 multiply-add, divide and compare
// each with hot code translated, as a machine runs it, and interpreted only. A figure is the median of several runs of fixed length, `best` the best.
import { Rv64Core } from "../../vmm/vcpu/riscv64/core.ts";
import { coreModule } from "../vmm/vcpu/riscv64/core-module.ts";
import * as encode from "../vmm/vcpu/riscv64/encode.ts";
import { generator } from "../vmm/vcpu/riscv64/reference/integer.ts";

const RAM = 0x8000_0000n;
const TABLE = 0x20_0000;
const DATA = 0x28_0000;
const CODE = 0x30_0000;
const FUNCTIONS = 4096;

const tight = (): number[] => [
  encode.i(0x13, 1, 7, 6, 13), // xorshift: x6 ^= x6 << 13, ^= x6 >> 7, ^= x6 << 17
  encode.r(0x33, 4, 0, 6, 6, 7),
  encode.i(0x13, 5, 7, 6, 7),
  encode.r(0x33, 4, 0, 6, 6, 7),
  encode.i(0x13, 1, 7, 6, 17),
  encode.r(0x33, 4, 0, 6, 6, 7),
  encode.i(0x13, 7, 8, 6, 0x7f8), // a random doubleword of 2 KiB
  encode.r(0x33, 0, 0, 8, 8, 5),
  encode.ld(9, 8, 0),
  encode.r(0x33, 0, 0, 9, 9, 6),
  encode.sd(9, 8, 0),
  encode.addi(10, 10, 1),
  encode.b(1, 10, 0, -48),
];

const float = (): number[] => [
  encode.r(0x43, 7, (3 << 2) | 1, 1, 1, 2), // f1 = f1 × f2 + f3
  encode.r(0x53, 7, (3 << 2) | 1, 4, 1, 5), // f4 = f1 / f5
  encode.r(0x53, 7, 1, 6, 6, 4), // f6 += f4
  encode.r(0x53, 1, 0x51, 8, 1, 7), // x8 = f1 < f7
  encode.addi(10, 10, 1),
  encode.b(1, 10, 0, -20),
];

/** The caller's loop; each function is straight code with short forward branches, loads and stores around x5, and a return. */
function footprint(ram: DataView): number[] {
  const next = generator(1);
  let at = CODE;
  for (let n = 0; n < FUNCTIONS; n++) {
    ram.setBigUint64(TABLE + n * 8, RAM + BigInt(at), true);
    for (let k = 0; k < 40; k++) {
      // a branch skips the instruction behind it, which is a long one
      if (next() % 10 === 0)
        at = put(ram, at, encode.b(next() % 2, 8 + (next() % 8), 8 + (next() % 8), 8), encode.addi(9, 9, 1));
      else at = put(ram, at, body(next));
    }
    at = put(ram, at, 0x8082); // c.jr ra
  }
  return [
    encode.i(0x13, 1, 7, 6, 13),
    encode.r(0x33, 4, 0, 6, 6, 7),
    encode.i(0x13, 5, 7, 6, 7),
    encode.r(0x33, 4, 0, 6, 6, 7),
    encode.r(0x33, 7, 0, 7, 6, 28), // x28: mask of the table's offsets
    encode.r(0x33, 0, 0, 7, 7, 29), // x29: the table
    encode.ld(7, 7, 0),
    encode.jalr(1, 7, 0),
    encode.j(0, -32),
  ];
}

function put(ram: DataView, at: number, ...words: number[]): number {
  let end = at;
  for (const word of words) {
    ram.setUint16(end, word & 0xffff, true);
    end += 2;
    if ((word & 3) !== 3) continue;
    ram.setUint16(end, word >>> 16, true);
    end += 2;
  }
  return end;
}

/** A random instruction on x8 … x15; x5 is the data pointer. */
function body(next: () => number): number {
  const [rd, rs1, rs2] = [8 + (next() % 8), 8 + (next() % 8), 8 + (next() % 8)];
  switch (next() % 11) {
    case 0:
      return encode.ld(rd, 5, (next() % 64) * 8);
    case 1:
      return encode.load(2, rd, 5, (next() % 64) * 4);
    case 2:
      return encode.sd(rs2, 5, (next() % 64) * 8);
    case 3:
      return encode.r(0x33, 0, 0, rd, rs1, rs2);
    case 4:
      return encode.i(0x13, 7, rd, rs1, next() % 2048);
    case 5:
      return encode.i(0x13, 1, rd, rs1, next() % 64);
    case 6:
      return encode.i(0x1b, 0, rd, rs1, next() % 2048);
    case 7:
      return 0x8c01 | ((rd - 8) << 7) | ((rs2 - 8) << 2); // c.sub
    case 8:
      return 0x0001 | (rd << 7) | ((1 + (next() % 31)) << 2); // c.addi
    case 9:
      return 0x8002 | (rd << 7) | (rs2 << 2); // c.mv
    default:
      return 0x9002 | (rd << 7) | (rs2 << 2); // c.add
  }
}

const SLICE = 1_000_000;

/** Instructions per second of `runs` runs of `instructions` each, in ascending order. */
function measure(core: Rv64Core, instructions: number, runs: number): number[] {
  const rates: number[] = [];
  for (let run = 0; run < runs; run++) {
    const before = core.executed;
    const start = performance.now();
    while (core.executed - before < instructions) core.run(0, SLICE);
    rates.push(((core.executed - before) / (performance.now() - start)) * 1000);
  }
  return rates.sort((x, y) => x - y);
}

export const about = "instructions a second of the RV64 vCPU, by kind of code";
export async function bench(emit: (line: Record<string, unknown>) => void): Promise<void> {
  const module = coreModule();
  const silent = { high: 0, load: () => 0, store: () => {} };
  for (const [name, program] of [
    ["tight", tight],
    ["footprint", footprint],
    ["float", float],
  ] as const) {
    for (const translate of [true, false]) {
      const core = new Rv64Core({ module, ramBytes: 8 << 20, mmio: silent, translate });
      const ram = new DataView(core.memory.buffer, core.ramOffset, core.ramBytes);
      put(ram, 0, ...program(ram));
      core.start(0, RAM, 0n);
      core.write(0, "sstatus", 3n << 13n);
      core.setX(0, 5, RAM + BigInt(DATA));
      core.setX(0, 6, 88172645463325252n);
      core.setX(0, 28, BigInt((FUNCTIONS - 1) * 8));
      core.setX(0, 29, RAM + BigInt(TABLE));
      core.setF(0, 1, 0x3ff0000000000000n);
      core.setF(0, 2, 0x3feffffff0000000n); // a little below 1
      core.setF(0, 3, 0x3eb0000000000000n);
      core.setF(0, 5, 0x4008000000000000n);
      const rates = measure(core, 100_000_000, 5);
      const opsPerSecond = rates[rates.length >> 1]!;
      const how = translate ? "" : " interpreted";
      emit({
        bench: `cpu ${name}${how}`,
        nsPerOp: 1e9 / opsPerSecond,
        opsPerSecond,
        best: rates.at(-1),
        unit: "instructions",
      });
    }
  }
}
