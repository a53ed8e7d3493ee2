// What fencing-program.ts needs of AArch64. X1 and X2 addresses, X3–X15 and V3–V15 what is computed with, X16, X17 and X29 scratch of composed steps, X18 stack,
// X19 data window, X20 device, X21 which page is called next, X22 count of a loop, X23 where the program goes on behind EL0; X24–X28 are the exception handler's, X24 sums up all
// exceptions: syndrome, pc, time.
import { AArch64Core } from "../../../../vmm/vcpu/aarch64/core.ts";
import {
  type Assembler,
  DEVICE,
  type Draw,
  type FencingGuest,
  NOWHERE,
  RAM,
  STACK_TOP,
  type Tables,
  USER_END,
  USER_WINDOW,
  WINDOW,
  writeProgram,
} from "../engine/fencing-program.ts";
import { coreModule } from "./core-module.ts";
import { randomInstruction } from "./random-instructions.ts";
import { randomVector, randomVectorInstruction } from "./random-vector-instructions.ts";

const [BASE, DEV, COUNT, RESUME, SUM, H0, H1, H2, PERIOD, SCRATCH, LINK] = [
  19, 20, 22, 23, 24, 25, 26, 27, 28, 29, 30,
] as const;
const STACK = 18;
const WHICH = 21;

// System registers, as MRS and MSR name them.
const [ESR, ELR, SPSR, CNTVCT, CNTV_CVAL, FPCR, FPSR, NZCV] = [
  0x185200, 0x184020, 0x184000, 0x1be040, 0x1be340, 0x1b4400, 0x1b4420, 0x1b4200,
] as const;
const mrs = (t: number, register: number): number => (0xd5200000 | register | t) >>> 0;
const msr = (register: number, t: number): number => (0xd5000000 | register | t) >>> 0;
const movz = (d: number, value: number, half = 0): number => (0xd2800000 | (half << 21) | (value << 5) | d) >>> 0;
const movk = (d: number, value: number, half: number): number => (0xf2800000 | (half << 21) | (value << 5) | d) >>> 0;
const addRegister = (d: number, n: number, m: number): number => (0x8b000000 | (m << 16) | (n << 5) | d) >>> 0;
const addImmediate = (d: number, n: number, value: number, high = false): number =>
  (0x91000000 | (high ? 1 << 22 : 0) | (value << 10) | (n << 5) | d) >>> 0;
const ldr = (t: number, n: number, offset = 0): number => (0xf9400000 | ((offset / 8) << 10) | (n << 5) | t) >>> 0;
const str = (t: number, n: number, offset = 0): number => (0xf9000000 | ((offset / 8) << 10) | (n << 5) | t) >>> 0;
const branch = (distance: number, link: boolean): number =>
  ((link ? 0x94000000 : 0x14000000) | ((distance / 4) & 0x3ffffff)) >>> 0;
const branchIf = (condition: number, distance: number): number =>
  (0x54000000 | (((distance / 4) & 0x7ffff) << 5) | condition) >>> 0;
const NE = 1;
const compare = (n: number, value: number): number => (0xf100001f | (value << 10) | (n << 5)) >>> 0;
const [ERET, SVC, HVC, BRK, WFI, ISB, DSB] = [
  0xd69f03e0, 0xd4000001, 0xd4000002, 0xd4200000, 0xd503207f, 0xd5033fdf, 0xd5033b9f,
] as const;
const [DC_CVAU, IC_IVAU, IC_IALLU, TLBI_VAE1, TLBI_VAAE1IS, TLBI_VMALLE1] = [
  0xd50b7b20, 0xd50b7520, 0xd508751f, 0xd5088720, 0xd5088360, 0xd508871f,
] as const;
/** A store there lowers the interrupt. */
const ACKNOWLEDGE = 0xff8;

const [VALID, TABLE_OR_PAGE, EL0, READ_ONLY, AF] = [1n, 3n, 1n << 6n, 1n << 7n, 1n << 10n];
const TABLES: Tables = {
  page: (physical, { user, execute }) =>
    BigInt(physical) | TABLE_OR_PAGE | AF | (user ? EL0 : 0n) | (user && execute ? READ_ONLY : 0n),
  block: (physical) => BigInt(physical) | VALID | AF,
  table: (physical) => BigInt(physical) | TABLE_OR_PAGE,
};

class A64Assembler implements Assembler {
  at = 0;
  readonly #ram: DataView;
  readonly #draw: Draw;

  constructor(ram: DataView, draw: Draw) {
    this.#ram = ram;
    this.#draw = draw;
  }

  #emit(...words: readonly number[]): void {
    for (const word of words) {
      this.#ram.setUint32(this.at - RAM, word, true);
      this.at += 4;
    }
  }

  #li(d: number, value: number): void {
    this.#emit(movz(d, value & 0xffff), movk(d, Math.floor(value / 0x10000), 1));
  }

  #work(): number {
    return 3 + this.#draw(13);
  }

  vectors(area: number): void {
    const [handler, interrupt] = [area + 0x800, area + 0x900];
    for (let vector = 0; vector < 0x800; vector += 0x80) {
      this.at = area + vector;
      this.#emit(branch(((vector & 0x80) === 0 ? handler : interrupt) - this.at, false));
    }
    const sum = (register: number): void => {
      this.#emit((0xd37be800 | (SUM << 5) | H2) >>> 0); // lsl h2, sum, #5
      this.#emit((0xcb000000 | (SUM << 16) | (H2 << 5) | SUM) >>> 0); // sub sum, h2, sum
      this.#emit((0xca000000 | (register << 16) | (SUM << 5) | SUM) >>> 0); // eor sum, sum, register
    };
    const when = (register: number, value: number, body: () => void): void => {
      this.#emit(compare(register, value));
      const at = this.at;
      this.at += 4;
      body();
      this.#emit(ERET);
      const end = this.at;
      this.at = at;
      this.#emit(branchIf(NE, end - at));
      this.at = end;
    };
    this.at = handler;
    this.#emit(mrs(H0, ESR), mrs(H1, ELR));
    sum(H0);
    sum(H1);
    this.#emit(mrs(H2, CNTVCT), addRegister(SUM, SUM, H2));
    this.#emit((0xd35afc00 | (H0 << 5) | H0) >>> 0); // lsr h0, h0, #26: the class
    for (const fetch of [0x20, 0x21, 0x22]) when(H0, fetch, () => this.#emit(msr(ELR, LINK)));
    when(H0, 0x15, () => {
      // from EL0 the program goes on; from EL1 behind the SVC
      this.#emit(mrs(H2, SPSR), (0xf2400c1f | (H2 << 5)) >>> 0); // tst h2, #15
      this.#emit(branchIf(NE, 20));
      this.#emit(msr(ELR, RESUME), movz(H2, 5), msr(SPSR, H2), 0xd503201f);
    });
    this.#emit(addImmediate(H1, H1, 4), msr(ELR, H1), ERET);
    if (this.at > interrupt) throw new Error("the handler is too long");
    this.at = interrupt;
    this.#emit(mrs(H1, ELR));
    sum(H1);
    this.#emit(mrs(H0, CNTVCT), addRegister(SUM, SUM, H0));
    this.#emit((0x92400800 | (SUM << 5) | H2) >>> 0, addImmediate(H2, H2, 1)); // and h2, sum, #7
    this.#emit((0x9b000000 | (PERIOD << 16) | (H0 << 10) | (H2 << 5) | H2) >>> 0); // madd h2, h2, period, h0
    this.#emit(msr(CNTV_CVAL, H2), str(SUM, DEV, ACKNOWLEDGE), ERET);
    this.at = area + USER_END;
    this.#emit(SVC);
  }

  compute(): void {
    const draw = this.#draw;
    if (draw(20) === 0) {
      this.#emit(mrs(this.#work(), [NZCV, FPSR, CNTVCT, FPCR][draw(4)]!));
      return;
    }
    for (;;) {
      const word = draw(2) === 0 ? randomInstruction(draw) : randomVectorInstruction(draw) >>> 0;
      const isBranch = (word & 0x1c000000) === 0x14000000;
      const isMemory = (word & 0x0a000000) === 0x08000000;
      if (isBranch || isMemory || !isWork(word & 31)) continue;
      if (draw(30) !== 0 && !isAllocated(word)) continue;
      this.#emit(word);
      return;
    }
  }

  #locate(page: number): void {
    this.#emit(addImmediate(1, BASE, page, true), addImmediate(1, 1, this.#draw(4096)), movz(2, this.#draw(256)));
  }

  access(page: number): void {
    const draw = this.#draw;
    this.#locate(page);
    for (let n = 0; n < 1 + draw(2); ) {
      const word = draw(2) === 0 ? randomInstruction(draw) : randomVectorInstruction(draw) >>> 0;
      const isVector = (word & 0x04000000) !== 0;
      if ((word & 0x0a000000) !== 0x08000000 || ((word >>> 5) & 31) !== 1) continue;
      if (!isVector && !(isWork(word & 31) && (!isPair(word) || isWork((word >>> 10) & 31)))) continue;
      if (draw(30) !== 0 && !isAllocated(word)) continue;
      this.#emit(word);
      n++;
    }
  }

  atomic(page: number): void {
    this.#locate(page);
    if (this.#draw(16) !== 0) this.#emit(0x927df021); // and x1, x1, #~7
    this.#emit((0xc85f7c20 | 16) >>> 0, addImmediate(16, 16, 1)); // ldxr x16, [x1]
    if (this.#draw(4) === 0) this.compute();
    if (this.#draw(8) === 0) this.#emit(0xd5033f5f); // clrex
    this.#emit((0xc8007c20 | (17 << 16) | 16) >>> 0); // stxr w17, x16, [x1]
    this.#emit(addRegister(this.#work(), this.#work(), 17));
  }

  maybe(body: () => void): void {
    const at = this.at;
    const [kind, register, bit] = [this.#draw(3), this.#work(), this.#draw(32)];
    this.at += 4;
    body();
    const end = this.at;
    this.at = at;
    const distance = (end - at) / 4;
    if (kind === 0) this.#emit(branchIf(this.#draw(16), end - at));
    else if (kind === 1)
      this.#emit((0xb4000000 | (this.#draw(2) << 24) | (distance << 5) | register) >>> 0); // cbz, cbnz
    else this.#emit((0x36000000 | (this.#draw(2) << 24) | (bit << 19) | (distance << 5) | register) >>> 0); // tbz, tbnz
    this.at = end;
  }

  loop(count: number, body: () => void): void {
    this.#emit(movz(COUNT, count));
    const again = this.at;
    body();
    this.#emit((0xf1000400 | (COUNT << 5) | COUNT) >>> 0); // subs
    this.#emit(branchIf(NE, again - this.at));
  }

  enter(): void {
    this.#emit((0xf81f0c00 | (STACK << 5) | LINK) >>> 0); // str x30, [x18, #-16]!
  }

  leave(calls: boolean): void {
    if (calls) this.#emit((0xf8410400 | (STACK << 5) | LINK) >>> 0); // ldr x30, [x18], #16
    this.#emit(0xd65f03c0);
  }

  call(address: number, byRegister: boolean): void {
    this.#go(address, byRegister, true);
  }

  jump(address: number, byRegister: boolean): void {
    this.#go(address, byRegister, false);
  }

  #go(address: number, byRegister: boolean, link: boolean): void {
    if (!byRegister) {
      this.#emit(branch(address - this.at, link));
      return;
    }
    this.#li(16, address);
    this.#emit(((link ? 0xd63f0000 : 0xd61f0000) | (16 << 5)) >>> 0);
  }

  callOneOf(first: number): void {
    this.#emit(addImmediate(WHICH, WHICH, 37), (0x92402000 | (WHICH << 5) | 16) >>> 0); // and x16, which, #511
    this.#li(17, first);
    this.#emit(0x8b103230, 0xd63f0200); // add x16, x17, x16, lsl #12; blr x16
  }

  patchable(): number {
    this.#emit(addImmediate(this.#work(), this.#work(), this.#draw(64)));
    return this.at - 4;
  }

  patch(address: number): void {
    this.#li(1, address);
    this.#emit((0xb9400020 | 16) >>> 0, 0x11100210, (0xb9000020 | 16) >>> 0); // ldr w16, [x1]; add w16, w16, #0x400; str
    this.#emit(DC_CVAU | 1, DSB, this.#draw(4) === 0 ? IC_IALLU : (IC_IVAU | 1) >>> 0, DSB, ISB);
  }

  #fence(address: number | null): void {
    if (address === null) this.#emit(TLBI_VMALLE1);
    else {
      this.#li(16, Math.floor(address / 0x1000));
      this.#emit(((this.#draw(2) === 0 ? TLBI_VAE1 : TLBI_VAAE1IS) | 16) >>> 0);
    }
    this.#emit(DSB, ISB);
  }

  exchange(entries: readonly [number, number], addresses: readonly [number, number], everything: boolean): void {
    this.#li(1, entries[0]);
    this.#li(2, entries[1]);
    this.#emit(ldr(16, 1), ldr(17, 2), str(17, 1), str(16, 2));
    if (everything) this.#fence(null);
    else for (const address of addresses) this.#fence(address);
  }

  without(entry: number, address: number, body: () => void): void {
    this.#li(1, entry);
    this.#emit(ldr(SCRATCH, 1), str(31, 1));
    this.#fence(address);
    body();
    this.#li(1, entry);
    this.#emit(str(SCRATCH, 1));
    this.#fence(this.#draw(2) === 0 ? address : null);
  }

  device(): void {
    const draw = this.#draw;
    const size = draw(4);
    const kind = draw(2) === 0 ? 0x39400000 : 0x39000000;
    this.#emit((kind | (size << 30) | (draw(16) << 10) | (DEV << 5) | this.#work()) >>> 0);
  }

  exception(): void {
    const of: readonly (() => void)[] = [
      () => this.#emit(BRK),
      () => this.#emit(0),
      () => this.#emit(SVC),
      () => this.#emit(HVC),
      () => {
        this.#li(1, NOWHERE + this.#draw(4096));
        this.#emit(this.#draw(2) === 0 ? ldr(this.#work(), 1) : str(this.#work(), 1));
      },
      () => {
        this.#li(1, WINDOW);
        this.#emit((0xf85fc020 | this.#work()) >>> 0); // ldur, below the window
      },
      () => {
        this.#li(16, NOWHERE + 2);
        this.#emit((0xd63f0000 | (16 << 5)) >>> 0); // blr to where no instruction can begin
      },
    ];
    of[this.#draw(of.length)]!();
  }

  user(address: number, end: number): void {
    this.#li(BASE, USER_WINDOW);
    this.#li(LINK, end);
    this.#li(16, address);
    this.#emit(msr(ELR, 16), msr(SPSR, 31));
    this.#emit((0x10000000 | (2 << 5) | RESUME) >>> 0, ERET); // adr resume, .+8
    this.#li(BASE, WINDOW);
  }

  wait(): void {
    this.#emit(WFI);
  }
}

let probe: AArch64Core | null = null;

/** Whether a core executes it: where it does not, an exception is most of what there would be to execute. */
function isAllocated(word: number): boolean {
  probe ??= new AArch64Core({
    ...{ module: coreModule(), ramBytes: 0x1000, translate: false, decodePages: 4 },
    mmio: { high: 0, load: () => 0, store: () => {} },
  });
  probe.start(0, BigInt(RAM), 0n);
  probe.write(0, "cpacr_el1", 3n << 20n);
  probe.write(0, "vbar_el1", 0n);
  probe.setX(0, 1, BigInt(RAM + 0x800));
  new DataView(probe.memory.buffer, probe.ramOffset).setUint32(0, word, true);
  probe.run(0, 1);
  return probe.read(0, "pc") !== 0x200n;
}

function isWork(register: number): boolean {
  return register >= 3 && register < 16;
}

function isPair(word: number): boolean {
  return (word & 0x3a000000) === 0x28000000;
}

/** T0SZ 25, 4 KiB granules, no TTBR1, IPS 40 bits. */
const TCR = 25n | (25n << 16n) | (1n << 23n) | (2n << 30n) | (2n << 32n);

export const a64Guest: FencingGuest<AArch64Core> = {
  make: (options) => new AArch64Core({ module: coreModule(), ...options }),
  boot: (core, cpu, area, start, draw) => {
    const ram = new DataView(core.memory.buffer, core.ramOffset, core.ramBytes);
    const root = writeProgram(ram, area, new A64Assembler(ram, draw), TABLES, draw);
    core.start(cpu, BigInt(start), 0n);
    core.write(cpu, "ttbr0_el1", BigInt(root));
    core.write(cpu, "tcr_el1", TCR);
    core.write(cpu, "sctlr_el1", 0x30d0_0801n);
    core.flushTranslations(cpu);
    core.fenceInstructions(cpu);
    core.write(cpu, "vbar_el1", BigInt(area));
    core.write(cpu, "cpacr_el1", 3n << 20n);
    core.write(cpu, "cntkctl_el1", 3n);
    core.write(cpu, "daif", 0n);
    const period = Math.ceil((100 * core.nsPerInstruction) / core.nsPerTick);
    core.write(cpu, "cntv_ctl_el0", 1n);
    core.write(cpu, "cntv_cval_el0", BigInt(period));
    core.setInterrupt(cpu, false, true);
    for (let n = 3; n < 16; n++) core.setX(cpu, n, (BigInt(draw(2 ** 32)) << 32n) | BigInt(draw(2 ** 32)));
    for (let n = 0; n < 32; n++) core.setV(cpu, n, randomVector(draw));
    core.setX(cpu, STACK, BigInt(area + STACK_TOP));
    core.setX(cpu, BASE, BigInt(WINDOW));
    core.setX(cpu, DEV, BigInt(DEVICE));
    core.setX(cpu, PERIOD, BigInt(period));
  },
  interrupt: (core, value) => core.setInterrupt(value % core.harts, (value & 8) !== 0, (value & 0x70) !== 0),
  accessed: (core, address) => {
    if (address === DEVICE + ACKNOWLEDGE) core.setInterrupt(core.running, false, true);
  },
  timer: (core, cpu) => core.timerDeadline(cpu),
  registers: (core, cpu) => {
    const parts: (string | bigint)[] = [];
    for (let n = 0; n < 31; n++) parts.push(`x${n}:${core.x(cpu, n).toString(16)}`);
    for (let n = 0; n < 32; n++) parts.push(`v${n}:${core.v(cpu, n).toString(16)}`);
    for (const name of [
      ...(["pc", "sp", "sp_el0", "elr_el1", "spsr_el1", "esr_el1", "far_el1", "ttbr0_el1", "par_el1"] as const),
      ...(["cntv_cval_el0", "instret", "nzcv", "daif", "el", "spsel", "fpcr"] as const),
    ])
      parts.push(`${name}:${core.read(cpu, name).toString(16)}`);
    parts.push(core.floatStatus(cpu));
    return parts.join(" ");
  },
};
