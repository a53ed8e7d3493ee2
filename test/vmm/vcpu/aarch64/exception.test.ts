// Exceptions as the manual has them (DDI 0487): vectors D1.4.1, syndromes D24.2.40, PSTATE C5.2, timer D12.
import { describe, expect, it } from "vitest";
import { Board, Exit, RAM, VECTORS } from "./board.ts";

const SVC = 0xd4000541; // svc #42
const HVC = 0xd4000002;
const ERET = 0xd69f03e0;
const NOP = 0xd503201f;
const WFI = 0xd503207f;
const DAIF_CLEAR_I = 0xd50342ff; // msr daifclr, #2

function board(): Board {
  return new Board({ translate: false });
}

function atEl0(): Board {
  const it = board();
  it.write("sp_el1", 0x1111n);
  it.write("el", 0n);
  it.write("spsel", 0n);
  it.write("daif", 0n);
  it.write("sp", 0x2222n);
  return it;
}

describe("synchronous exceptions", () => {
  it("SVC returns behind itself, with its immediate and PSTATE saved", () => {
    const it = board();
    it.write("nzcv", 9n);
    it.execute(SVC);
    expect(it.exception).toEqual({ vector: 0x200, ec: 0x15, iss: 42, elr: RAM + 4n, far: 0n });
    expect(it.read("spsr_el1")).toBe((9n << 28n) | (15n << 6n) | 5n);
    expect([it.read("daif"), it.read("el"), it.read("spsel")]).toEqual([15n, 1n, 1n]);
  });

  it("from EL0 take the lower-level vector and EL1's stack pointer", () => {
    const it = atEl0();
    it.execute(SVC);
    expect(it.exception).toMatchObject({ vector: 0x400, ec: 0x15 });
    expect(it.read("spsr_el1")).toBe(0n);
    expect([it.read("sp"), it.read("sp_el0")]).toEqual([0x1111n, 0x2222n]);
    it.place(VECTORS + 0x400n, ERET);
    it.core.run(0, 1);
    expect([it.read("pc"), it.read("el"), it.read("sp"), it.read("sp_el1")]).toEqual([RAM + 4n, 0n, 0x2222n, 0x1111n]);
  });

  it.each([
    ["an unallocated instruction", 0x00000000, 0x00, 0],
    ["HVC at EL0", HVC, 0x00, 0],
    ["SMC", 0xd4000003, 0x00, 0],
    ["ERET at EL0", ERET, 0x00, 0],
    ["BRK", 0xd4207d00, 0x3c, 1000],
    ["MRS of MIDR_EL1, which the kernel emulates", 0xd5380000, 0x00, 0],
    ["MSR of TTBR0_EL1", 0xd5182000, 0x00, 0],
    ["DAIFSet without SCTLR_EL1.UMA", 0xd50342df, 0x18, (3 << 14) | (6 << 17) | (4 << 10) | (31 << 5) | (2 << 1)],
    ["MRS of CTR_EL0 without UCT", 0xd53b0023, 0x18, (3 << 20) | (1 << 17) | (3 << 14) | (3 << 5) | 1],
    [
      "MRS of CNTVCT_EL0 without EL0VCTEN",
      0xd53be045,
      0x18,
      (3 << 20) | (2 << 17) | (3 << 14) | (14 << 10) | (5 << 5) | 1,
    ],
    ["IC IVAU without UCI", 0xd50b7525, 0x18, (1 << 20) | (1 << 17) | (3 << 14) | (7 << 10) | (5 << 5) | (5 << 1)],
    ["TLBI", 0xd508871f, 0x00, 0],
  ])("at EL0: %s", (_name, code, ec, iss) => {
    const it = atEl0();
    it.execute(code);
    expect(it.exception).toMatchObject({ vector: 0x400, ec, iss, elr: RAM });
  });

  it("a target that is no multiple of 4 is the fault of where it leads", () => {
    const it = board();
    it.setX(3, RAM + 0x102n);
    it.execute(0xd61f0060); // br x3
    expect(it.exception).toEqual({ vector: 0x200, ec: 0x22, iss: 0, elr: RAM + 0x102n, far: RAM + 0x102n });
    it.reset();
    it.setX(3, 1n);
    it.execute(0xd63f0060); // blr x3
    expect(it.exception).toMatchObject({ ec: 0x22, far: 1n });
    expect(it.x(30)).toBe(RAM + 4n);
  });

  it("a return to a state that does not exist is an illegal execution state", () => {
    const it = board();
    it.write("elr_el1", RAM + 0x40n);
    it.write("spsr_el1", 0x9n); // EL2h
    it.execute(ERET);
    expect(it.exception).toMatchObject({ vector: 0x200, ec: 0x0e, iss: 0, elr: RAM + 0x40n });
    expect((it.read("spsr_el1") >> 20n) & 1n).toBe(1n);
  });

  it("floating point does not exist unless it is offered, and then CPACR_EL1 decides", () => {
    const fmov = 0x1e604020; // fmov d0, d1
    const it = new Board({ translate: false, features: { floatingPoint: false } });
    it.execute(fmov);
    expect(it.exception).toMatchObject({ ec: 0 });
    const mrs = 0xd53b4400; // mrs x0, fpcr
    const with_ = board();
    with_.execute(mrs);
    expect(with_.exception).toMatchObject({ ec: 0x07, iss: 0x1e00000 });
    with_.reset();
    with_.write("cpacr_el1", 3n << 20n);
    with_.execute(mrs);
    expect(with_.exception).toBeNull();
  });

  it("HVC at EL1 leaves to the firmware, behind the instruction", () => {
    const it = board();
    expect(it.execute(HVC)).toBe(Exit.Call);
    expect(it.read("pc")).toBe(RAM + 4n);
  });
});

describe("the virtual timer and interrupts", () => {
  it("fires at the exact instruction, when it is routed, unmasked and let through", () => {
    const it = new Board({ translate: false, nsPerInstruction: 10, timebaseFrequency: 62_500_000 });
    it.core.setInterrupt(0, false, true);
    it.write("cntv_cval_el0", 10n); // 160 ns: 16 instructions
    it.write("cntv_ctl_el0", 1n);
    it.write("daif", 0n);
    it.place(RAM, ...Array.from({ length: 64 }, () => NOP));
    it.write("pc", RAM);
    it.core.run(0, 40);
    expect(it.exception).toMatchObject({ vector: 0x280, elr: RAM + 64n });
    expect(it.core.timerFires(0)).toBe(true);
  });

  it("is not taken while PSTATE.I is set, and at once when that is cleared", () => {
    const it = board();
    it.core.setInterrupt(0, true, false);
    it.execute(NOP, NOP);
    expect(it.read("pc")).toBe(RAM + 8n);
    it.execute(DAIF_CLEAR_I, NOP);
    expect(it.exception).toMatchObject({ vector: 0x280, elr: RAM + 4n });
  });

  it("ends WFI, masked or not", () => {
    const it = board();
    expect(it.execute(WFI)).toBe(Exit.Wfi);
    it.core.setInterrupt(0, true, false);
    expect(it.core.interruptPending(0)).toBe(true);
    expect(it.execute(WFI)).toBe(Exit.Budget);
    expect(it.read("pc")).toBe(RAM + 4n);
  });

  it("reads its registers as they stand: CVAL, TVAL as a signed difference, CTL with ISTATUS", () => {
    const it = board(); // 10 MHz, 10 ns an instruction: 10 instructions a tick
    it.setX(0, 0xffff_ffffn); // TVAL −1
    it.execute(0xd51be300, 0xd53be341, 0xd53be302); // msr cntv_tval_el0, x0; mrs x1, cntv_cval_el0; mrs x2, cntv_tval_el0
    expect([it.x(1), it.x(2)]).toEqual([0xffff_ffff_ffff_ffffn, 0xffff_ffffn]);
    it.setX(0, 1n);
    it.setX(3, 0n);
    it.execute(0xd51be343, 0xd51be320, 0xd53be321); // msr cntv_cval_el0, x3; msr cntv_ctl_el0, x0; mrs x1, cntv_ctl_el0
    expect(it.x(1)).toBe(5n);
  });
});

describe("identification", () => {
  it.each([
    ["MIDR_EL1", 0xd5380000, 0x000f0001n],
    ["MPIDR_EL1", 0xd53800a0, 0x80000000n],
    ["ID_AA64PFR0_EL1", 0xd5380400, 0x1100000000000011n],
    ["ID_AA64ISAR0_EL1: CRC32", 0xd5380600, 0x10000n],
    ["ID_AA64MMFR0_EL1", 0xd5380700, 0x0f000022n],
    ["ID_AA64DFR0_EL1", 0xd5380500, 0x10101006n],
    ["an ID register nobody has named", 0xd53807e0, 0n],
    ["DCZID_EL0", 0xd53b00e0, 4n],
    ["CurrentEL", 0xd5384240, 4n],
  ])("%s", (_name, code, value) => {
    const it = board();
    it.setX(0, 0x5555n);
    it.execute(code);
    expect([it.exception, it.x(0)]).toEqual([null, value]);
  });
});
