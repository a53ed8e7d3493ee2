// Exceptions and the privileged instructions: causes, stval, sepc, the sstatus stack, what is illegal (privileged specification, "Supervisor Trap
// Setup" and "Handling"; the platform notes' list of what must be illegal).
import { beforeAll, beforeEach, describe, expect, it } from "vitest";
import { Board, Exit, RAM } from "./board.ts";
import * as encode from "./encode.ts";

let board: Board;
beforeAll(() => {
  board = new Board();
});
beforeEach(() => board.reset());

const SIE = 1n << 1n;
const SPIE = 1n << 5n;
const SPP = 1n << 8n;
const USER = 0n;
const SUPERVISOR = 1n;

describe("taking a trap", () => {
  it.each([
    [SUPERVISOR, SIE, SPP | SPIE],
    [SUPERVISOR, 0n, SPP],
    [USER, SIE, SPIE],
    [USER, 0n, 0n],
  ])("from mode %s with sstatus %s pushes mode and SIE", (mode, before, after) => {
    board.write("mode", mode);
    board.write("sstatus", before);
    board.execute(encode.EBREAK);
    expect(board.trap).toEqual({ cause: 3n, value: RAM, pc: RAM });
    expect(board.read("sstatus")).toBe(after);
    expect(board.read("mode")).toBe(SUPERVISOR);
  });

  it("an exception goes to the base of a vectored stvec", () => {
    board.write("stvec", 0x8000_f001n);
    board.execute(encode.EBREAK);
    expect(board.pc).toBe(0x8000_f000n);
  });

  it("c.ebreak reports its own address", () => {
    board.execute(0x9002);
    expect(board.trap).toEqual({ cause: 3n, value: RAM, pc: RAM });
  });

  it("a trapped instruction changes no register", () => {
    board.setX(5, 0x1001n);
    board.setX(7, 7n);
    board.execute(encode.load(2, 7, 5, 0));
    expect(board.trap?.cause).toBe(5n);
    expect(board.x(7)).toBe(7n);
  });
});

describe("ecall", () => {
  it("from S-mode leaves to the VMM with pc behind it and traps nothing", () => {
    board.setX(17, 0x10n);
    expect(board.execute(encode.ECALL)).toBe(Exit.Call);
    expect(board.pc).toBe(RAM + 4n);
    expect(board.core.xLow(0, 17)).toBe(0x10);
    expect(board.read("scause")).toBe(0n);
  });

  it("from U-mode is the guest's environment call, cause 8", () => {
    board.write("mode", USER);
    expect(board.execute(encode.ECALL)).toBe(Exit.Budget);
    expect(board.trap).toEqual({ cause: 8n, value: 0n, pc: RAM });
  });
});

describe("sret", () => {
  it.each([
    [SPP | SPIE, SUPERVISOR, SIE | SPIE],
    [SPP, SUPERVISOR, SPIE],
    [SPIE, USER, SIE | SPIE],
    [0n, USER, SPIE],
  ])("with sstatus %s pops mode and SIE, leaving SPP user and SPIE 1", (before, mode, after) => {
    board.write("sstatus", before);
    board.write("sepc", RAM + 0x100n);
    board.execute(encode.SRET);
    expect([board.pc, board.read("mode"), board.read("sstatus")]).toEqual([RAM + 0x100n, mode, after]);
  });
});

describe("illegal instructions", () => {
  const always: [string, number][] = [
    ["all zeros", 0],
    ["all ones", 0xffffffff],
    ["mret", 0x30200073],
    ["hfence.vma", 0x22000073],
    ["hfence.gvma", 0x62000073],
    ["hlv.w", 0x68004073],
    ["dret", 0x7b200073],
    ["ecall with rd", 0xf3],
    ["sret with rs1", 0x10208073],
    ["vsetvli", 0x0c007057],
    ["lr with rs2", encode.amo(2, true, 5, 6, 7)],
    ["amo of bytes", encode.r(0x2f, 0, 0, 5, 6, 7)],
    ["amocas (Zacas)", encode.amo(5, true, 5, 6, 7)],
    ["load funct3 7", encode.load(7, 5, 6, 0)],
    ["store funct3 4", encode.store(4, 5, 6, 0)],
    ["branch funct3 2", encode.b(2, 5, 6, 8)],
    ["jalr funct3 1", encode.i(0x67, 1, 5, 6, 0)],
    ["slli with a reserved bit", encode.i(0x13, 1, 5, 6, 0x040 | 0x800)],
    ["slliw by 32", encode.i(0x1b, 1, 5, 6, 0x020)],
    ["sraiw by 32", encode.i(0x1b, 5, 5, 6, 0x420)],
    ["OP funct7 2", encode.r(0x33, 0, 2, 5, 6, 7)],
    ["zext.h with rs2 1", encode.r(0x3b, 4, 4, 5, 6, 1)],
    ["OP-32 funct7 5 (Zbc has no word forms)", encode.r(0x3b, 1, 5, 5, 6, 7)],
    ["OP funct7 7 funct3 4, between Zicond's", encode.r(0x33, 4, 7, 5, 6, 7)],
    ["OP funct7 7 funct3 6", encode.r(0x33, 6, 7, 5, 6, 7)],
    ["wrs.nto with rd", 0x00d000f3],
    ["wrs.sto with rs1", 0x01d08073],
    ["between wrs.nto and wrs.sto", 0x01500073],
    ["cbo 3", encode.i(0x0f, 2, 0, 5, 3)],
    ["fadd.h (Zfh)", encode.r(0x53, 0, 2, 1, 2, 3)],
    ["fmadd.h (Zfh)", encode.r(0x43, 0, (4 << 2) | 2, 1, 2, 3)],
    ["fclass.h (Zfh)", encode.r(0x53, 1, 0x72, 5, 1, 0)],
    ["fsgnj.h (Zfh)", encode.r(0x53, 0, 0x12, 1, 2, 3)],
    ["feq.h (Zfh)", encode.r(0x53, 2, 0x52, 5, 2, 3)],
    ["fcvt.w.h (Zfh)", encode.r(0x53, 0, 0x62, 5, 1, 0)],
    ["fcvt.h.w (Zfh)", encode.r(0x53, 0, 0x6a, 1, 5, 0)],
    ["fmv.x.h with rs2", encode.r(0x53, 0, 0x72, 5, 1, 1)],
    ["fmv.h.x with funct3", encode.r(0x53, 1, 0x7a, 1, 5, 0)],
    ["fcvt.s.s", encode.r(0x53, 0, 0x20, 1, 2, 0)],
    ["fcvt.d.d", encode.r(0x53, 0, 0x21, 1, 2, 1)],
    ["fcvt.h.h", encode.r(0x53, 0, 0x22, 1, 2, 2)],
    ["fcvt.s.q", encode.r(0x53, 0, 0x20, 1, 2, 3)],
    ["fcvt.h.d with a reserved rounding mode", encode.r(0x53, 5, 0x22, 1, 2, 1)],
    ["flq", encode.i(0x07, 4, 1, 5, 0)],
    ["a load of a byte into f", encode.i(0x07, 0, 1, 5, 0)],
    ["a store of a byte from f", encode.s(0x27, 0, 5, 1, 0)],
    ["fadd.q", encode.r(0x53, 0, 3, 1, 2, 3)],
    ["fsqrt with rs2", encode.r(0x53, 0, 0x2d, 1, 2, 3)],
    ["fcvt.l.d type 4", encode.r(0x53, 0, 0x61, 1, 2, 4)],
    ["fsgnj funct3 3", encode.r(0x53, 3, 0x11, 1, 2, 3)],
    ["SYSTEM funct3 4", encode.i(0x73, 4, 5, 6, 0)],
    ["48-bit prefix", 0x0000001f],
  ];
  it.each(always)("%s", (_, code) => {
    // a word whose low bits are not 3 is a compressed instruction
    const bits = (code & 3) === 3 ? code : code & 0xffff;
    board.execute(bits);
    expect(board.trap).toEqual({ cause: 2n, value: BigInt(bits), pc: RAM });
  });

  const supervisorOnly: [string, number][] = [
    ["sret", encode.SRET],
    ["wfi", encode.WFI],
    ["sfence.vma", encode.SFENCE_VMA],
    ["sfence.vma of an address and an ASID", encode.r(0x73, 0, 9, 0, 5, 6)],
    ["sinval.vma", encode.r(0x73, 0, 0x0b, 0, 5, 6)],
    ["sfence.w.inval", 0x18000073],
    ["sfence.inval.ir", 0x18100073],
    ["csrr sstatus", encode.csr(2, 5, 0x100, 0)],
    ["csrw satp", encode.csr(1, 0, 0x180, 5)],
    ["csrr stopei", encode.csr(2, 5, 0x15c, 0)],
  ];
  it.each(supervisorOnly)("%s in U-mode, but not in S-mode", (_, code) => {
    board.execute(code);
    expect(board.trap).toBeNull();
    board.reset();
    board.write("mode", USER);
    board.execute(code);
    expect(board.trap).toEqual({ cause: 2n, value: BigInt(code), pc: RAM });
  });

  it("fence, fence.tso, pause and fence.i are not illegal in either mode", () => {
    for (const mode of [USER, SUPERVISOR]) {
      board.reset();
      board.write("mode", mode);
      board.execute(0x0ff0000f, 0x8330000f, 0x0100000f, encode.FENCE_I);
      expect(board.trap).toBeNull();
      expect(board.pc).toBe(RAM + 16n);
    }
  });
});

describe("a hart that cannot trap", () => {
  it("uses up its budget when its trap vector cannot be fetched, instead of hanging", () => {
    board.write("stvec", 0x1000n);
    board.pc = 0x2000n;
    const before = board.core.executed;
    expect(board.run(1000)).toBe(Exit.Budget);
    expect(board.core.executed - before).toBe(1000);
    expect(board.read("sepc")).toBe(0x1000n);
  });
});
