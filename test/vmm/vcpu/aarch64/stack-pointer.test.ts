// Stack pointer alignment (DDI 0487, D1.3.10.2 and D24.2.40): an access with SP as its base, SP no multiple of 16, is exception class 0x26 at its own
// address where SCTLR_EL1.SA (EL1) or SA0 (EL0) asks for it. Prefetches, literals, arithmetic and other bases are none.
import { describe, expect, it } from "vitest";
import { Board, RAM } from "./board.ts";

const EAGER = { interval: 16, samples: 1 };
const SCTLR = 0x30d0_0800n;
const [SA, SA0] = [1n << 3n, 1n << 4n];
const STACK = RAM + 0x8000n;

const SUBS_X3 = 0xf1000463; // subs x3, x3, #1
const B_NE_BACK_2 = 0x54ffffc1; // b.ne . - 8
const MOV_SP_X4 = 0x9100009f;
const B_BACK_4 = 0x17fffffc; // b . - 16

const ACCESSES: readonly (readonly [string, number])[] = [
  ["ldr x0, [sp]", 0xf94003e0],
  ["str x0, [sp, #8]", 0xf90007e0],
  ["ldrb w0, [sp]", 0x394003e0],
  ["ldr x0, [sp], #16", 0xf84107e0],
  ["str x0, [sp, #-16]!", 0xf81f0fe0],
  ["ldr x0, [sp, x1]", 0xf8616be0],
  ["ldtr x0, [sp]", 0xf8400be0],
  ["ldp x0, x2, [sp]", 0xa9400be0],
  ["stp x0, x2, [sp, #-16]!", 0xa9bf0be0],
  ["ldar x0, [sp]", 0xc8dfffe0],
  ["ldxr x0, [sp]", 0xc85f7fe0],
  ["ldr q0, [sp]", 0x3dc003e0],
  ["stp q0, q1, [sp]", 0xad0007e0],
  ["ld1 {v0.16b}, [sp]", 0x4c4073e0],
  ["ld4 {v0.16b-v3.16b}, [sp]", 0x4c4003e0],
  ["ld1r {v0.16b}, [sp]", 0x4d40c3e0],
];
const OTHERS: readonly (readonly [string, number])[] = [
  ["prfm pldl1keep, [sp]", 0xf98003e0],
  ["ldr x0, . + 4", 0x58000020],
  ["add x0, sp, #8", 0x910023e0],
  ["ldr x0, [x4]", 0xf9400080],
];

/**
 * 100 rounds of an instruction with SP on a multiple of 16, then, by the same code, with SP out of line by 8 bytes: what is taken there, null where it went
 * on.
 */
function outOfLine(instruction: number, el: 0 | 1, sctlr: bigint, translate: typeof EAGER | false) {
  const board = new Board({ translate });
  board.write("sctlr_el1", sctlr);
  board.write("cpacr_el1", 3n << 20n);
  board.place(RAM, instruction, SUBS_X3, B_NE_BACK_2, MOV_SP_X4, B_BACK_4);
  if (el === 0) {
    board.write("el", 0n);
    board.write("spsel", 0n);
  }
  board.write("pc", RAM);
  board.write("sp", STACK);
  board.setX(1, 32n);
  board.setX(3, 100n);
  board.setX(4, STACK + 8n);
  board.write("far_el1", 0x1234n);
  board.run(300);
  expect([board.exception, board.read("pc")]).toEqual([null, RAM + 12n]);
  expect(board.core.translations > 0).toBe(translate !== false);
  board.run(3);
  const { exception } = board;
  if (exception !== null) expect(board.read(el === 0 ? "sp_el0" : "sp")).toBe(STACK + 8n);
  return exception;
}

describe.each([
  ["interpreted", false],
  ["translated", EAGER],
] as const)("%s", (_, translate) => {
  it.each(ACCESSES)("%s", (__, instruction) => {
    const fault = { ec: 0x26, iss: 0, elr: RAM, far: 0x1234n };
    expect(outOfLine(instruction, 1, SCTLR | SA, translate)).toEqual({ ...fault, vector: 0x200 });
    expect(outOfLine(instruction, 0, SCTLR | SA0, translate)).toEqual({ ...fault, vector: 0x400 });
    expect(outOfLine(instruction, 1, SCTLR | SA0, translate)).toBeNull();
    expect(outOfLine(instruction, 0, SCTLR | SA, translate)).toBeNull();
  });

  it.each(OTHERS)("%s is none", (__, instruction) => {
    expect(outOfLine(instruction, 1, SCTLR | SA | SA0, translate)).toBeNull();
    expect(outOfLine(instruction, 0, SCTLR | SA | SA0, translate)).toBeNull();
  });
});
