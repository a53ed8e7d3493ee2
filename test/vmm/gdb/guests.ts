// Small guests to debug, the same for both instruction sets: RAM mapped one to one and once more at HIGH, a CPU that loads DATA there, adds one, stores it
// behind and counts, for ever; and a second CPU, if there is one, that only counts.

import { ECAM_BASE, PCI_MEMORY32_BASE, RAM_BASE, UART_BASE } from "../../../vmm/memory-map.ts";
import { A1, HSM, Program, S0, T0 } from "../rv64-program.ts";
import { addi } from "../vcpu/riscv64/encode.ts";

/** Virtual addresses HIGH + n lead to RAM_BASE + n. */
export const HIGH = 0xffff_ffff_c000_0000n;
const TABLE = RAM_BASE + 0x10000;
/** From RAM's beginning. */
export const DATA = 0x20000;
const CODE = RAM_BASE + 64;
const SECOND = 0x8000;

export interface DebugGuest {
  readonly name: "riscv64" | "arm64";
  readonly architecture: string;
  /** An image file for boot --kernel. */
  readonly file: Uint8Array;
  /** Address of the loop, and its instructions: load, add, store, count, jump back. */
  readonly loop: bigint;
  readonly words: readonly number[];
  /** The second CPU's loop, one instruction to count and one to jump. */
  readonly second: bigint;
  /** Numbers in the target description: the counter, the register that is stored, pc. */
  readonly counter: number;
  readonly stored: number;
  readonly pc: number;
  readonly registers: number;
}

export function rv64Guest(): DebugGuest {
  const S1 = 9;
  const program = new Program();
  program
    .sbi(HSM, 0, 1, CODE + SECOND, 0)
    .store(8, TABLE + 2 * 8, (BigInt(RAM_BASE) >> 2n) | 0xcfn)
    .store(8, TABLE + 511 * 8, (BigInt(RAM_BASE) >> 2n) | 0xcfn)
    .store(8, RAM_BASE + DATA, 41n)
    .csrWrite(0x180, (8n << 60n) | BigInt(TABLE / 4096))
    .emit(0x12000073) // sfence.vma
    .li(S1, HIGH + BigInt(DATA))
    .li(S0, 0);
  const loop = program.here;
  const words = [
    (S1 << 15) | (3 << 12) | (T0 << 7) | 0x03, // ld t0, 0(s1)
    addi(T0, T0, 1),
    (T0 << 20) | (S1 << 15) | (3 << 12) | (8 << 7) | 0x23, // sd t0, 8(s1)
    addi(S0, S0, 1),
  ].map((word) => word >>> 0);
  program.emit(...words).jump(loop);
  words.push(program.words.at(-1)!);
  while (program.here < SECOND) program.emit(addi(0, 0, 0));
  program.emit(addi(A1, A1, 1)).jump(SECOND);
  return {
    ...{ name: "riscv64", architecture: "riscv:rv64", file: program.imageFile, words },
    ...{ loop: BigInt(CODE + loop), second: BigInt(CODE + SECOND), counter: S0, stored: T0, pc: 32 },
    registers: 33 + 35 + 11 + 1,
  };
}

export function arm64Guest(): DebugGuest {
  const words: number[] = [];
  const emit = (...code: number[]): void => {
    for (const word of code) words.push(word >>> 0);
  };
  const li = (d: number, value: bigint): void => {
    emit(0xd2800000 | (Number(value & 0xffffn) << 5) | d);
    for (let half = 1; half < 4; half++) {
      const part = Number((value >> BigInt(16 * half)) & 0xffffn);
      if (part !== 0) emit(0xf2800000 | (half << 21) | (part << 5) | d);
    }
  };
  const put = (address: number, value: bigint): void => {
    li(10, BigInt(address));
    li(11, value);
    emit(0xf900014b); // str x11, [x10]
  };
  const msr = (register: number, value: bigint): void => {
    li(11, value);
    emit(register | 11);
  };
  const BLOCK = 0x701n; // AF, inner shareable, EL1 read-write, a block
  // PSCI CPU_ON of CPU 1
  li(0, 0xc400_0003n);
  li(1, 1n);
  li(2, BigInt(CODE + SECOND));
  li(3, 0n);
  emit(0xd4000002); // hvc #0
  put(TABLE + 2 * 8, BigInt(RAM_BASE) | BLOCK);
  put(TABLE + 511 * 8, BigInt(RAM_BASE) | BLOCK);
  put(RAM_BASE + DATA, 41n);
  msr(0xd518a200, 0xffn); // MAIR_EL1
  msr(0xd5182000, BigInt(TABLE)); // TTBR0_EL1
  msr(0xd5182020, BigInt(TABLE)); // TTBR1_EL1
  msr(0xd5182040, 25n | (25n << 16n) | (2n << 30n) | (2n << 32n)); // TCR_EL1: 39 bits each, 4 KiB granules, 40-bit outputs
  emit(0xd5033fdf); // isb
  msr(0xd5181000, 0x30d0_0801n); // SCTLR_EL1.M
  emit(0xd5033fdf);
  li(9, HIGH + BigInt(DATA));
  li(8, 0n);
  const loop = words.length * 4;
  const body = [
    0xf9400125, // ldr x5, [x9]
    0x910004a5, // add x5, x5, #1
    0xf9000525, // str x5, [x9, #8]
    0x91000508, // add x8, x8, #1
    0x17fffffc, // b loop
  ];
  emit(...body);
  while (words.length * 4 < SECOND) emit(0xd503201f);
  emit(0x9100056b, 0x17ffffff); // add x11, x11, #1; b
  const file = new Uint8Array(64 + words.length * 4);
  const view = new DataView(file.buffer);
  view.setUint32(0, 0x14000010, true); // b 64
  view.setBigUint64(16, BigInt(file.length), true);
  view.setUint32(56, 0x644d5241, true);
  words.forEach((word, n) => {
    view.setUint32(64 + 4 * n, word, true);
  });
  return {
    ...{ name: "arm64", architecture: "aarch64", file, words: body },
    ...{ loop: BigInt(CODE + loop), second: BigInt(CODE + SECOND), counter: 8, stored: 5, pc: 32 },
    registers: 34 + 34 + 21,
  };
}

/** An edu device at 00:02.0 copies a page of its own into RAM; then the machine is off. */
export function copies(to: number): Program {
  const device = ECAM_BASE + (2 << 15);
  const program = new Program()
    .store(4, device + 0x10, PCI_MEMORY32_BASE)
    .store(2, device + 4, 6)
    .store(8, PCI_MEMORY32_BASE + 0x80, 0x40000)
    .store(8, PCI_MEMORY32_BASE + 0x88, to)
    .store(8, PCI_MEMORY32_BASE + 0x90, 64)
    .store(8, PCI_MEMORY32_BASE + 0x98, 3);
  const wait = program.here;
  program
    .load(8, S0, PCI_MEMORY32_BASE + 0x98)
    .emit(0x00147413) // andi s0, s0, 1
    .branchZero(S0, false, wait)
    .print(UART_BASE, "done\n")
    .reset();
  return program;
}
