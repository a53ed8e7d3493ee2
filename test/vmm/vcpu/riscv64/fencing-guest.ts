// What fencing-program.ts needs of RV64. x1 link, x2 stack, x3 which page is called next, x4 count of a loop, x5–x7 and x17 scratch of composed steps, x8–x15 what is computed with, x16 data
// window, x18 device, x19 where the program goes on behind user mode; x26 and x28–x31 are the trap handler's, x30 sums up all traps: cause, pc, time.
import { Rv64Core } from "../../../../vmm/vcpu/riscv64/core.ts";
import { Program } from "../../rv64-program.ts";
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
import * as encode from "./encode.ts";

const { addi, b, csr, i, j, jalr, ld, r, sd } = encode;
const [RA, SP, WHICH, COUNT, T0, T1, T2, BASE, T3, DEV, RESUME] = [1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19] as const;
const [PERIOD, H0, H1, SUM, H2] = [26, 28, 29, 30, 31] as const;
const CSR = {
  siselect: 0x150,
  sireg: 0x151,
  sstatus: 0x100,
  sepc: 0x141,
  scause: 0x142,
  sip: 0x144,
  stimecmp: 0x14d,
  stopei: 0x15c,
  time: 0xc01,
};
const SPP = 0x100;
/** Of OP-FP, by what may be in rs2: any register, 0, 0 to 3; by funct7, and rounding modes or what stands there. */
const FLOAT: readonly (readonly [funct7: readonly number[], roundings: readonly number[], rs2: number])[] = [
  [[0x00, 0x01, 0x04, 0x05, 0x08, 0x09, 0x0c, 0x0d], [0, 1, 2, 3, 4, 7], 32],
  [[0x10, 0x11, 0x14, 0x15, 0x50, 0x51], [0, 1], 32],
  [[0x2c, 0x2d, 0x21], [0, 1, 7], 1],
  [[0x60, 0x61, 0x68, 0x69], [0, 1, 4, 7], 4],
  [[0x70, 0x71], [0, 1], 1],
  [[0x78, 0x79], [0], 1],
  [[0x20, 0x22, 0x2e, 0x53], [0, 1, 2], 4], // of H, and some that are illegal
];
const ILLEGAL_AT_TIMES = [0x20, 0x05, 0x07, 0x10, 0x30, 0x04, 0x24, 0x14, 0x34];

const V_R_W_A_D = 0xc7n;
const X = 8n;
const U = 16n;
const entry = (physical: number, flags: bigint): bigint => (BigInt(physical / 0x1000) << 10n) | flags;
const TABLES: Tables = {
  page: (physical, { user, execute }) => entry(physical, V_R_W_A_D | (execute ? X : 0n) | (user ? U : 0n)),
  block: (physical) => entry(physical, V_R_W_A_D | X),
  table: (physical) => entry(physical, 1n),
};

class Rv64Assembler implements Assembler {
  at = 0;
  readonly #ram: DataView;
  readonly #draw: Draw;

  constructor(ram: DataView, draw: Draw) {
    this.#ram = ram;
    this.#draw = draw;
  }

  #emit(...words: readonly number[]): void {
    for (const word of words) {
      this.#ram.setUint16(this.at - RAM, word & 0xffff, true);
      if ((word & 3) === 3) this.#ram.setUint16(this.at - RAM + 2, word >>> 16, true);
      this.at += (word & 3) === 3 ? 4 : 2;
    }
  }

  #li(rd: number, value: number | bigint): void {
    this.#emit(...new Program().li(rd, value).words);
  }

  #work(): number {
    return 8 + this.#draw(8);
  }

  vectors(area: number): void {
    const sum = (rs: number): void => {
      this.#emit(i(0x13, 1, H2, SUM, 5), r(0x33, 0, 0x20, SUM, H2, SUM), r(0x33, 4, 0, SUM, SUM, rs));
    };
    const skipUnless = (rs: number, value: number, body: () => void): void => {
      this.#emit(addi(H2, 0, value));
      const at = this.at;
      this.#emit(b(1, rs, H2, 4));
      body();
      this.#emit(encode.SRET);
      const end = this.at;
      this.at = at;
      this.#emit(b(1, rs, H2, end - at));
      this.at = end;
    };
    this.#emit(csr(2, H0, CSR.scause, 0), csr(2, H1, CSR.sepc, 0));
    sum(H0);
    sum(H1);
    this.#emit(csr(2, H2, CSR.time, 0), r(0x33, 0, 0, SUM, SUM, H2));
    const at = this.at;
    this.#emit(b(4, H0, 0, 4));
    for (const fetch of [1, 12]) skipUnless(H0, fetch, () => this.#emit(csr(1, 0, CSR.sepc, RA)));
    skipUnless(H0, 8, () => {
      this.#li(H2, SPP);
      this.#emit(csr(2, 0, CSR.sstatus, H2), csr(1, 0, CSR.sepc, RESUME));
    });
    this.#emit(addi(H1, H1, 4), csr(1, 0, CSR.sepc, H1), encode.SRET);
    const interrupts = this.at;
    this.at = at;
    this.#emit(b(4, H0, 0, interrupts - at));
    this.at = interrupts;
    this.#emit(i(0x13, 1, H0, H0, 1), i(0x13, 5, H0, H0, 1));
    skipUnless(H0, 5, () => {
      this.#emit(i(0x13, 7, H2, SUM, 7), addi(H2, H2, 1), r(0x33, 0, 1, H2, H2, PERIOD));
      this.#emit(csr(2, H1, CSR.time, 0), r(0x33, 0, 0, H2, H2, H1), csr(1, 0, CSR.stimecmp, H2));
    });
    skipUnless(H0, 1, () => this.#emit(csr(7, 0, CSR.sip, 2)));
    this.#emit(csr(1, 0, CSR.stopei, 0), encode.SRET);
    this.at = area + USER_END;
    this.#emit(encode.ECALL);
  }

  /** Enables all interrupts of the CPU's file, then goes to `start`. */
  begin(area: number, start: number): bigint {
    this.at = area + 0x800;
    for (const [register, value] of [
      [0xc0, -1],
      [0x70, 1],
    ] as const) {
      this.#li(T0, register);
      this.#emit(csr(1, 0, CSR.siselect, T0));
      this.#li(T0, value);
      this.#emit(csr(1, 0, CSR.sireg, T0));
    }
    this.jump(start, true);
    return BigInt(area + 0x800);
  }

  compute(): void {
    this.#emit(this.#computing());
  }

  #computing(): number {
    const draw = this.#draw;
    const [rd, rs1, rs2] = [this.#work(), this.#work(), this.#work()];
    const five = draw(32);
    const of = <T>(list: readonly T[]): T => list[draw(list.length)]!;
    switch (draw(10)) {
      case 0:
        return of([0x8002, 0x9002]) | (rd << 7) | (rs2 << 2); // c.mv, c.add
      case 1:
        return of([0x0001, 0x4001]) | (draw(2) << 12) | (rd << 7) | ((five | 1) << 2); // c.addi, c.li
      case 2:
        return of([0x8c01, 0x8c21, 0x8c41, 0x8c61]) | ((rd - 8) << 7) | ((rs2 - 8) << 2); // c.sub, c.xor, c.or, c.and
      case 3:
        if (draw(8) === 0) return r(0x33, draw(8), of(ILLEGAL_AT_TIMES), rd, rs1, rs2);
        return draw(2) === 0
          ? r(0x33, draw(8), draw(2), rd, rs1, rs2)
          : r(0x3b, of([0, 4, 5, 6, 7]), of([1, 1, 0x20]), rd, rs1, rs2);
      case 4:
        return i(of([0x13, 0x1b]), of([0, 2, 3, 4, 6, 7, 0]), rd, rs1, draw(4096));
      case 5:
        return i(0x13, of([1, 5]), rd, rs1, draw(64) | of([0, 0, 0x400]));
      case 6:
        return encode.u(of([0x17, 0x37]), rd, draw(2 ** 20));
      case 7:
        return draw(4) === 0 ? csr(of([1, 2, 3]), rd, 1, rs1) : csr(2, rd, of([1, 2, 3, 0xc01, 0xc02]), 0);
      case 8: // fused; a format of 3 is illegal now and then
        return r(of([0x43, 0x47, 0x4b, 0x4f]), of([0, 1, 7]), (draw(32) << 2) | draw(2), rd, rs1, rs2);
      default: {
        const [funct7, roundings, second] = of(FLOAT);
        return r(0x53, of(roundings), of(funct7), rd, rs1, second === 32 ? rs2 : draw(second));
      }
    }
  }

  #locate(page: number): void {
    this.#emit(encode.lui(T0, page), r(0x33, 0, 0, T0, T0, BASE));
  }

  access(page: number): void {
    const draw = this.#draw;
    this.#locate(page);
    for (let n = 1 + draw(3); n > 0; n--) {
      const at = draw(3) === 0 ? draw(4096) : draw(512) * 8;
      const kind = draw(6);
      if (kind < 3) this.#emit(encode.load(draw(7), this.#work(), T0, at));
      else if (kind < 5) this.#emit(encode.store(draw(4), T0, this.#work(), at));
      else if (draw(2) === 0) this.#emit(i(0x07, 1 + draw(3), this.#work(), T0, at));
      else this.#emit(encode.s(0x27, 1 + draw(3), T0, this.#work(), at));
    }
  }

  atomic(page: number): void {
    const draw = this.#draw;
    const wide = draw(2) === 0;
    this.#locate(page);
    this.#emit(addi(T0, T0, draw(200) * 8 + (draw(16) === 0 ? 1 : 0)));
    if (draw(2) === 0) {
      const kind = [0, 1, 4, 8, 12, 16, 20, 24, 28][draw(9)]!;
      this.#emit(encode.amo(kind, wide, this.#work(), T0, this.#work()));
      return;
    }
    this.#emit(encode.amo(2, wide, T2, T0, 0), addi(T2, T2, 1));
    if (draw(4) === 0) this.compute();
    this.#emit(encode.amo(3, wide, T1, T0, T2));
    this.#emit(r(0x33, 0, 0, this.#work(), T1, this.#work()));
  }

  maybe(body: () => void): void {
    const at = this.at;
    const [kind, rs1, rs2] = [[0, 1, 4, 5, 6, 7][this.#draw(6)]!, this.#work(), this.#work()];
    this.at += 4;
    body();
    const end = this.at;
    this.at = at;
    this.#emit(b(kind, rs1, rs2, end - at));
    this.at = end;
  }

  loop(count: number, body: () => void): void {
    this.#emit(addi(COUNT, 0, count));
    const again = this.at;
    body();
    this.#emit(addi(COUNT, COUNT, -1));
    this.#emit(b(1, COUNT, 0, again - this.at));
  }

  enter(): void {
    this.#emit(addi(SP, SP, -16), sd(RA, SP, 0));
  }

  leave(calls: boolean): void {
    if (calls) this.#emit(ld(RA, SP, 0), addi(SP, SP, 16));
    this.#emit(this.#draw(2) === 0 ? 0x8082 : jalr(0, RA, 0)); // c.jr ra
  }

  call(address: number, byRegister: boolean): void {
    this.#go(RA, address, byRegister);
  }

  jump(address: number, byRegister: boolean): void {
    this.#go(0, address, byRegister);
  }

  #go(link: number, address: number, byRegister: boolean): void {
    if (!byRegister) {
      this.#emit(j(link, address - this.at));
      return;
    }
    const low = this.#draw(4096) - 2048;
    this.#li(T0, address - low);
    this.#emit(jalr(link, T0, low));
  }

  callOneOf(first: number): void {
    this.#emit(addi(WHICH, WHICH, 37), i(0x13, 7, T0, WHICH, 511), i(0x13, 1, T0, T0, 12));
    this.#li(T1, first);
    this.#emit(r(0x33, 0, 0, T0, T0, T1), jalr(RA, T0, 0));
  }

  patchable(): number {
    this.#emit(addi(this.#work(), this.#work(), this.#draw(4096)));
    return this.at - 4;
  }

  patch(address: number): void {
    this.#li(T0, address);
    this.#emit(encode.load(2, T1, T0, 0), encode.lui(T2, 0x100), r(0x33, 0, 0, T1, T1, T2));
    this.#emit(encode.store(2, T0, T1, 0), encode.FENCE_I);
  }

  #fence(address: number | null): void {
    if (address === null) {
      this.#emit(encode.SFENCE_VMA);
      return;
    }
    this.#li(T0, address + this.#draw(4096));
    this.#emit(r(0x73, 0, this.#draw(2) === 0 ? 9 : 0xb, 0, T0, 0));
  }

  exchange(entries: readonly [number, number], addresses: readonly [number, number], everything: boolean): void {
    this.#li(T0, entries[0]);
    this.#li(T1, entries[1]);
    this.#emit(ld(T2, T0, 0), ld(T3, T1, 0), sd(T3, T0, 0), sd(T2, T1, 0));
    if (everything) this.#fence(null);
    else for (const address of addresses) this.#fence(address);
  }

  without(entry: number, address: number, body: () => void): void {
    this.#li(T0, entry);
    this.#emit(ld(T3, T0, 0), sd(0, T0, 0));
    this.#fence(address);
    body();
    this.#li(T0, entry);
    this.#emit(sd(T3, T0, 0));
    this.#fence(this.#draw(2) === 0 ? address : null);
  }

  device(): void {
    const draw = this.#draw;
    const size = draw(4);
    const at = draw(16) << size;
    if (draw(2) === 0) this.#emit(encode.load(size, this.#work(), DEV, at));
    else this.#emit(encode.store(size, DEV, this.#work(), at));
  }

  exception(): void {
    const of: readonly (() => void)[] = [
      () => this.#emit(encode.EBREAK),
      () => this.#emit(0xffffffff),
      () => this.#emit(encode.ECALL), // the firmware's
      () => {
        this.#li(T0, NOWHERE + this.#draw(4096));
        this.#emit(this.#draw(2) === 0 ? ld(this.#work(), T0, 0) : sd(this.#work(), T0, 0));
      },
      () => {
        this.#li(T0, WINDOW);
        this.#emit(encode.amo(0, true, this.#work(), T0, this.#work()), ld(this.#work(), T0, -4)); // below the window
      },
    ];
    of[this.#draw(of.length)]!();
  }

  user(address: number, end: number): void {
    this.#li(BASE, USER_WINDOW);
    this.#li(RA, end);
    this.#li(T0, address);
    this.#emit(csr(1, 0, CSR.sepc, T0));
    this.#li(T0, SPP);
    this.#emit(csr(3, 0, CSR.sstatus, T0));
    this.#emit(encode.u(0x17, RESUME, 0), addi(RESUME, RESUME, 12), encode.SRET);
    this.#li(BASE, WINDOW);
  }

  wait(): void {
    this.#emit(encode.WFI);
  }
}

export const rv64Guest: FencingGuest<Rv64Core> = {
  make: (options) => new Rv64Core({ module: coreModule(), ...options }),
  boot: (core, hart, area, start, draw) => {
    const ram = new DataView(core.memory.buffer, core.ramOffset, core.ramBytes);
    const assembler = new Rv64Assembler(ram, draw);
    const root = writeProgram(ram, area, assembler, TABLES, draw);
    core.start(hart, assembler.begin(area, start), 0n);
    core.write(hart, "satp", (8n << 60n) | BigInt(root / 0x1000));
    core.flushTranslations(hart);
    core.fenceInstructions(hart);
    core.write(hart, "stvec", BigInt(area));
    core.write(hart, "sstatus", (1n << 13n) | 2n);
    core.write(hart, "sie", 0x222n);
    core.write(hart, "scounteren", 7n);
    const period = Math.ceil((100 * core.nsPerInstruction) / core.nsPerTick);
    core.write(hart, "stimecmp", BigInt(period));
    for (let n = 8; n < 16; n++) core.setX(hart, n, (BigInt(draw(2 ** 32)) << 32n) | BigInt(draw(2 ** 32)));
    for (let n = 0; n < 32; n++) core.setF(hart, n, (BigInt(draw(2 ** 32)) << 32n) | BigInt(draw(2 ** 32)));
    core.setX(hart, SP, BigInt(area + STACK_TOP));
    core.setX(hart, BASE, BigInt(WINDOW));
    core.setX(hart, DEV, BigInt(DEVICE));
    core.setX(hart, PERIOD, BigInt(period));
  },
  interrupt: (core, value) => {
    const hart = value % core.harts;
    if ((value & 8) !== 0) core.setSoftwareInterrupt(hart, (value & 16) !== 0);
    else core.raiseIdentity(hart, 1 + ((value >>> 4) % 60));
  },
  timer: (core, hart) => core.timerDeadline(hart),
  registers: (core, hart) => {
    const parts: (string | bigint)[] = [];
    for (let n = 0; n < 32; n++) parts.push(`x${n}:${core.x(hart, n).toString(16)}`, core.f(hart, n).toString(16));
    for (const name of [
      "pc",
      "sstatus",
      "satp",
      "scause",
      "stval",
      "sepc",
      "instret",
      "fflags",
      "frm",
      "mode",
      "stimecmp",
    ] as const)
      parts.push(`${name}:${core.read(hart, name).toString(16)}`);
    return parts.join(" ");
  },
};
