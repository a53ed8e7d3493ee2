// Interrupts: timer, software, external through the IMSIC file; stopi, stopei, sireg; wfi (AIA specification §3 and §5; platform notes §2, §4).
import { beforeAll, beforeEach, describe, expect, it } from "vitest";
import { Board, Exit, RAM } from "./board.ts";
import * as encode from "./encode.ts";

let board: Board;
beforeAll(() => {
  board = new Board();
});
beforeEach(() => board.reset());

const SIE_BIT = 2n;
const SSI = 1n << 1n;
const STI = 1n << 5n;
const SEI = 1n << 9n;
const INTERRUPT = 1n << 63n;
const SISELECT = 0x150;
const SIREG = 0x151;
const STOPEI = 0x15c;
const STOPI = 0xdb0;
const SIP = 0x144;

function select(register: number, value: bigint): void {
  board.setX(5, BigInt(register));
  board.setX(6, value);
  board.execute(encode.csr(1, 0, SISELECT, 5), encode.csr(1, 0, SIREG, 6));
}
function selected(register: number): bigint {
  board.setX(5, BigInt(register));
  board.execute(encode.csr(1, 0, SISELECT, 5), encode.csr(2, 7, SIREG, 0));
  return board.x(7);
}
function readCsr(csr: number): bigint {
  board.execute(encode.csr(2, 7, csr, 0));
  return board.x(7);
}
/** eidelivery on, identities 1…63 enabled. */
function openImsic(): void {
  select(0x70, 1n);
  select(0xc0, (1n << 64n) - 1n);
}
/** A loop at RAM that counts in x5. */
function spin(): void {
  board.place(RAM, encode.addi(5, 5, 1), encode.j(0, -4));
  board.setX(5, 0n);
  board.pc = RAM;
}

describe("the timer", () => {
  it("interrupts at exactly the instruction at which time reaches stimecmp", () => {
    spin();
    board.core.now = 0;
    board.write("stimecmp", 7n); // 700 ns = 70 instructions of 10 ns
    board.write("sie", STI);
    board.write("sstatus", SIE_BIT);
    board.run(71);
    expect(board.read("scause")).toBe(INTERRUPT | 5n);
    expect(board.x(5)).toBe(35n);
    expect(board.read("sepc")).toBe(RAM);
  });

  it("does so wherever the slices end", () => {
    for (const slice of [1, 3, 7, 69, 70, 71, 1000]) {
      board.reset();
      spin();
      board.core.now = 0;
      board.write("stimecmp", 7n);
      board.write("sie", STI);
      board.write("sstatus", SIE_BIT);
      for (let done = 0; done < 71; done += slice) board.run(slice);
      expect(board.x(5), `slices of ${slice}`).toBe(35n);
      expect(board.read("scause")).toBe(INTERRUPT | 5n);
    }
  });

  it("is pending while time ≥ stimecmp, and a write of stimecmp lowers it at once", () => {
    board.core.now = 1000;
    board.write("stimecmp", 10n);
    expect(readCsr(SIP) & STI).toBe(STI);
    board.setX(5, -1n);
    board.execute(encode.csr(1, 0, 0x14d, 5), encode.csr(2, 7, SIP, 0));
    expect(board.x(7) & STI).toBe(0n);
  });

  it("compares unsigned", () => {
    board.write("stimecmp", 1n << 63n);
    expect(readCsr(SIP) & STI).toBe(0n);
  });

  it("reports when it will fire", () => {
    board.write("stimecmp", 12n);
    expect(board.core.timerDeadline(0)).toBe(1200);
    board.write("stimecmp", (1n << 64n) - 1n);
    expect(board.core.timerDeadline(0)).toBe(Number.POSITIVE_INFINITY);
  });
});

describe("enabling", () => {
  it.each([
    [1n, 0n, false],
    [1n, SIE_BIT, true],
    [0n, 0n, true],
    [0n, SIE_BIT, true],
  ])("in mode %s with sstatus %s, taken: %s (S-mode needs SIE, U-mode does not)", (mode, sstatus, taken) => {
    spin();
    board.write("mode", mode);
    board.write("sstatus", sstatus);
    board.write("sie", SSI);
    board.core.setSoftwareInterrupt(0, true);
    board.run(1);
    expect(board.read("scause") === (INTERRUPT | 1n)).toBe(taken);
  });

  it("an interrupt that sie does not enable is not taken", () => {
    spin();
    board.write("sstatus", SIE_BIT);
    board.write("sie", STI | SEI);
    board.core.setSoftwareInterrupt(0, true);
    board.run(4);
    expect(board.x(5)).toBe(2n);
  });

  it.each([
    ["csrsi sstatus", encode.csr(6, 0, 0x100, 2)],
    ["csrw sie", encode.csr(1, 0, 0x104, 6)],
    ["csrw sip", encode.csr(1, 0, SIP, 6)],
    ["sret", encode.SRET],
  ])("%s that makes an interrupt possible is the last instruction before it", (name, code) => {
    board.setX(6, SSI);
    board.write("sepc", RAM + 4n);
    board.write("sie", name === "csrw sie" ? 0n : SSI);
    board.write("sstatus", name.startsWith("csrsi") ? 0n : name === "sret" ? (1n << 8n) | (1n << 5n) : SIE_BIT);
    if (name !== "csrw sip") board.core.setSoftwareInterrupt(0, true);
    board.place(RAM, code, encode.addi(7, 0, 1));
    board.setX(7, 0n);
    board.pc = RAM;
    board.run(2);
    expect(board.read("scause")).toBe(INTERRUPT | 1n);
    expect(board.read("sepc")).toBe(RAM + 4n);
    expect(board.x(7)).toBe(0n);
  });

  it("external comes before software before timer, and a vectored stvec is offset by the cause", () => {
    openImsic();
    board.write("stvec", 0x8000_f001n);
    board.core.raiseIdentity(0, 3);
    board.core.setSoftwareInterrupt(0, true);
    board.write("stimecmp", 0n);
    for (const [enabled, code] of [
      [SSI | STI | SEI, 9n],
      [SSI | STI, 1n],
      [STI, 5n],
    ] as const) {
      board.write("sie", enabled);
      board.write("sstatus", SIE_BIT);
      board.pc = RAM;
      board.run(1);
      expect(board.read("scause")).toBe(INTERRUPT | code);
      expect(board.read("sepc")).toBe(RAM);
      expect(board.pc).toBe(0x8000_f000n + 4n * code);
    }
  });
});

describe("stopi", () => {
  it("names the first pending and enabled interrupt, whatever sstatus.SIE is, and is 0 without one", () => {
    board.core.setSoftwareInterrupt(0, true);
    board.write("stimecmp", 0n);
    board.write("sie", 0n);
    expect(readCsr(STOPI)).toBe(0n);
    board.write("sie", STI);
    expect(readCsr(STOPI)).toBe((5n << 16n) | 1n);
    board.write("sie", STI | SSI);
    expect(readCsr(STOPI)).toBe((1n << 16n) | 1n);
  });
});

describe("the interrupt file", () => {
  it("keeps an identity that is raised while disabled and delivers it once enabled", () => {
    select(0x70, 1n);
    board.core.raiseIdentity(0, 5);
    expect(readCsr(STOPEI)).toBe(0n);
    expect(selected(0x80)).toBe(1n << 5n);
    expect(readCsr(SIP) & SEI).toBe(0n);
    select(0xc0, 1n << 5n);
    expect(readCsr(STOPEI)).toBe((5n << 16n) | 5n);
    expect(readCsr(SIP) & SEI).toBe(SEI);
  });

  it("stopei names the lowest identity; a write claims it", () => {
    openImsic();
    for (const identity of [40, 7, 9]) board.core.raiseIdentity(0, identity);
    for (const identity of [7n, 9n, 40n, 0n]) {
      board.execute(encode.csr(1, 7, STOPEI, 0));
      expect(board.x(7)).toBe((identity << 16n) | identity);
    }
    expect(readCsr(SIP) & SEI).toBe(0n);
  });

  it("eithreshold hides identities from the threshold on; 0 hides none", () => {
    openImsic();
    board.core.raiseIdentity(0, 7);
    select(0x72, 7n);
    expect(readCsr(STOPEI)).toBe(0n);
    select(0x72, 8n);
    expect(readCsr(STOPEI)).toBe((7n << 16n) | 7n);
    select(0x72, 0n);
    expect(readCsr(STOPEI)).toBe((7n << 16n) | 7n);
  });

  it("without eidelivery SEIP stays low but stopei still tells", () => {
    openImsic();
    select(0x70, 0n);
    board.core.raiseIdentity(0, 7);
    expect(readCsr(SIP) & SEI).toBe(0n);
    expect(readCsr(STOPEI)).toBe((7n << 16n) | 7n);
  });

  it("identity 0 and identities that do not exist are ignored", () => {
    openImsic();
    for (const identity of [0, 256, 2048, 0xffffffff]) board.core.raiseIdentity(0, identity);
    for (let word = 0; word < 4; word++) expect(selected(0x80 + 2 * word)).toBe(0n);
  });

  it("eip and eie of 255 identities: four words, bit 0 of the first and the words above read 0", () => {
    for (const base of [0x80, 0xc0]) {
      for (let word = 0; word < 32; word++) {
        select(base + 2 * word, (1n << 64n) - 1n);
        const expected = word >= 4 ? 0n : word === 0 ? (1n << 64n) - 2n : (1n << 64n) - 1n;
        expect(selected(base + 2 * word)).toBe(expected);
      }
    }
  });

  it("identities of the upper words are delivered, too", () => {
    select(0x70, 1n);
    select(0xc0 + 2 * 3, 1n << 63n);
    board.core.raiseIdentity(0, 255);
    expect(readCsr(STOPEI)).toBe((255n << 16n) | 255n);
  });

  it("odd selects in 0x81…0xff are illegal, 0x71 and 0x73…0x7f read 0, iprio reads 0 at even selects", () => {
    for (let register = 0; register < 0x200; register++) {
      board.reset();
      board.setX(5, BigInt(register));
      board.execute(encode.csr(1, 0, SISELECT, 5), encode.csr(2, 7, SIREG, 0));
      const even = register % 2 === 0;
      const exists =
        (register >= 0x30 && register < 0x40 && even) ||
        (register >= 0x70 && register < 0x80) ||
        (register >= 0x80 && register < 0x100 && even);
      expect(board.trap === null, `select 0x${register.toString(16)}`).toBe(exists);
      if (exists) expect(board.x(7)).toBe(0n);
    }
  });

  it("an MSI that arrives during an MMIO access interrupts right behind the access", () => {
    openImsic();
    board.write("sie", SEI);
    board.write("sstatus", SIE_BIT);
    board.setX(5, 0x1000_0000n);
    board.setX(7, 0n);
    board.port.during = () => board.core.raiseIdentity(0, 3);
    board.place(RAM, encode.load(2, 6, 5, 0), encode.addi(7, 0, 1));
    board.pc = RAM;
    board.run(2);
    board.port.during = () => {};
    expect(board.read("scause")).toBe(INTERRUPT | 9n);
    expect(board.read("sepc")).toBe(RAM + 4n);
    expect(board.x(7)).toBe(0n);
  });
});

describe("wfi", () => {
  it("leaves to the VMM when nothing is pending", () => {
    board.write("sie", STI);
    expect(board.execute(encode.WFI)).toBe(Exit.Wfi);
    expect(board.pc).toBe(RAM + 4n);
    expect(board.core.interruptPending(0)).toBe(false);
  });

  it("goes on when something enabled in sie is pending, even with sstatus.SIE clear", () => {
    board.write("sie", SSI);
    board.core.setSoftwareInterrupt(0, true);
    expect(board.execute(encode.WFI)).toBe(Exit.Budget);
    expect(board.pc).toBe(RAM + 4n);
    expect(board.core.interruptPending(0)).toBe(true);
  });
});

describe("what an MMIO access may do to the run", () => {
  const DEVICE = 0x1000_0000n;
  it("time is exact within it, and the guest sees time that it adds", () => {
    let seen = 0;
    board.port.during = () => {
      seen = board.core.now;
      board.core.now += 1_000_000;
    };
    board.core.now = 0;
    board.setX(5, DEVICE);
    board.execute(encode.NOP, encode.NOP, encode.load(2, 6, 5, 0), encode.csr(2, 7, 0xc01, 0));
    board.port.during = () => {};
    expect(seen).toBe(30); // three instructions, this one included
    expect(board.x(7)).toBe(10_000n);
  });

  it("limitSlice ends the slice early, stop ends it at once", () => {
    spin();
    board.place(RAM, encode.store(2, 6, 0, 0), encode.addi(5, 5, 1), encode.j(0, -4));
    board.setX(6, DEVICE);
    board.port.during = () => board.core.limitSlice(10);
    const before = board.core.executed;
    expect(board.run(1_000_000)).toBe(Exit.Budget);
    expect(board.core.executed - before).toBe(11);
    board.pc = RAM;
    board.port.during = () => board.core.stop();
    expect(board.run(1_000_000)).toBe(Exit.Stop);
    board.port.during = () => {};
    expect(board.pc).toBe(RAM + 4n);
  });
});
