// The AArch64 vCPU as the rest of the VMM sees it: up to eight CPUs in one WebAssembly core, their guest RAM, their registers. What does not depend on
// the instruction set (running, time, RAM, the mmio port) is EngineCore's.
//
//   setInterrupt(cpu, …)  what the interrupt controller's CPU interface signals, and whether the virtual timer's interrupt would be signalled
import { FLOAT_FLAGS, INSTRET, PC, RAM_BASE_PAGE, TINY_BEFORE_ROUNDING } from "../engine/assembly/layout.ts";
import { type CoreOptions, EngineCore, type EngineExports } from "../engine/core.ts";
import * as layout from "./assembly/layout.ts";
import { AARCH64 } from "./translator/aarch64.ts";

export { Exit, type HartMmioPort } from "../engine/core.ts";

export interface AArch64CoreOptions extends CoreOptions {
  /** What is offered beyond the integer instructions; everything when left out. */
  readonly features?: { readonly floatingPoint?: boolean; readonly crc32?: boolean };
}

/** 64-bit state that can be read and written from outside, by the architecture's names. */
const STATE = {
  pc: PC,
  sp: layout.SP,
  sp_el0: layout.SP_EL0,
  sp_el1: layout.SP_EL1,
  elr_el1: layout.ELR_EL1,
  spsr_el1: layout.SPSR_EL1,
  esr_el1: layout.ESR_EL1,
  far_el1: layout.FAR_EL1,
  vbar_el1: layout.VBAR_EL1,
  sctlr_el1: layout.SCTLR_EL1,
  tcr_el1: layout.TCR_EL1,
  ttbr0_el1: layout.TTBR0_EL1,
  ttbr1_el1: layout.TTBR1_EL1,
  mair_el1: layout.MAIR_EL1,
  cpacr_el1: layout.CPACR_EL1,
  contextidr_el1: layout.CONTEXTIDR_EL1,
  tpidr_el0: layout.TPIDR_EL0,
  tpidrro_el0: layout.TPIDRRO_EL0,
  tpidr_el1: layout.TPIDR_EL1,
  cntkctl_el1: layout.CNTKCTL_EL1,
  cntv_cval_el0: layout.CNTV_CVAL_EL0,
  cntv_ctl_el0: layout.CNTV_CTL_EL0,
  par_el1: layout.PAR_EL1,
  fpcr: layout.FPCR,
  instret: INSTRET,
} as const;
/** Fields of PSTATE; NZCV and DAIF as four bits. */
const STATE32 = { nzcv: layout.NZCV, daif: layout.DAIF, el: layout.EL, spsel: layout.SPSEL } as const;
export type CpuRegister = keyof typeof STATE | keyof typeof STATE32;

interface AArch64Exports extends EngineExports {
  timerFires(): number;
}

const ALL_ONES = 0xffff_ffff_ffff_ffffn;
/** SCTLR_EL1 out of reset: MMU and alignment checks off, RES1 bits as read. */
const SCTLR_RESET = 0x30d0_0800n;

export class AArch64Core extends EngineCore<AArch64Exports> {
  /** `module`: build/cpu.wasm, compiled. Throws RangeError for options outside their ranges. */
  constructor(options: AArch64CoreOptions) {
    const { floatingPoint = true, crc32 = true } = options.features ?? {};
    super(options, AARCH64, (view) => {
      view.setUint32(TINY_BEFORE_ROUNDING, 1, true);
      view.setUint32(
        layout.FEATURES,
        (floatingPoint ? layout.FEATURE_FP : 0) | (crc32 ? layout.FEATURE_CRC32 : 0),
        true,
      );
    });
    for (let cpu = 0; cpu < this.harts; cpu++) this.start(cpu, BigInt(RAM_BASE_PAGE) << 12n, 0n);
  }

  /** When the CPU's virtual timer will fire, in ns; Infinity if it is off or masked, or fires beyond 2^53 ns. */
  timerDeadline(cpu: number): number {
    if ((this.view.getUint32(this.at(cpu, layout.CNTV_CTL_EL0), true) & 3) !== 1) return Number.POSITIVE_INFINITY;
    const ns = this.view.getBigUint64(this.at(cpu, layout.CNTV_CVAL_EL0), true) * BigInt(this.nsPerTick);
    return ns >= 1n << 53n ? Number.POSITIVE_INFINITY : Number(ns);
  }

  /** Level of the virtual timer's interrupt (PPI 27), as of `now`. */
  timerFires(cpu: number): boolean {
    return this.as(cpu, () => this.exports.timerFires()) !== 0;
  }

  /**
   * What the CPU interface of the interrupt controller signals, the timer's interrupt aside: `irq`. `timer`: it would signal as soon as the virtual
   * timer fires, which the core then finds out by itself, at the exact instruction.
   */
  setInterrupt(cpu: number, irq: boolean, timer: boolean): void {
    this.view.setUint32(this.at(cpu, layout.IRQ), irq ? 1 : 0, true);
    this.view.setUint32(this.at(cpu, layout.TIMER_ROUTED), timer ? 1 : 0, true);
  }

  /** Brings a CPU to the state in which PSCI CPU_ON and a boot loader start one: EL1h, interrupts masked, MMU off, x0 as given, all else zero. */
  start(cpu: number, pc: bigint, x0: bigint): void {
    this.clear(cpu, () => this.view.setBigUint64(layout.MONITOR, ALL_ONES, true));
    this.write(cpu, "el", 1n);
    this.write(cpu, "spsel", 1n);
    this.write(cpu, "daif", 15n);
    this.write(cpu, "sctlr_el1", SCTLR_RESET);
    this.view.setBigUint64(this.at(cpu, layout.MPIDR_EL1), 0x8000_0000n | BigInt(cpu), true);
    this.write(cpu, "pc", pc & ~3n);
    this.setX(cpu, 0, x0);
  }

  // --- registers ---

  /** X0…X30, unsigned; 31 reads zero. */
  x(cpu: number, index: number): bigint {
    return (index & 31) === 31 ? 0n : this.view.getBigUint64(this.at(cpu, layout.X) + (index & 31) * 8, true);
  }

  setX(cpu: number, index: number, value: bigint): void {
    if ((index & 31) !== 31)
      this.view.setBigUint64(this.at(cpu, layout.X) + (index & 31) * 8, BigInt.asUintN(64, value), true);
  }

  /** Low half of X0…X30, without a bigint. */
  xLow(cpu: number, index: number): number {
    return this.view.getUint32(this.at(cpu, layout.X) + index * 8, true);
  }

  xHigh(cpu: number, index: number): number {
    return this.view.getUint32(this.at(cpu, layout.X) + index * 8 + 4, true);
  }

  /** FPSR, as float-rules.ts composes it: IOC, DZC, OFC, UFC, IXC, IDC, QC. */
  floatStatus(cpu: number): bigint {
    const flags = this.view.getUint32(this.at(cpu, FLOAT_FLAGS), true);
    const saturated = this.view.getUint32(this.at(cpu, layout.QC), true) & 1;
    const order = ((flags >> 4) & 1) | ((flags >> 2) & 2) | (flags & 4) | ((flags << 2) & 8) | ((flags << 4) & 16);
    return BigInt(order | (flags & 0x80) | (saturated << 27));
  }

  /** V0…V31, 128 bits. */
  v(cpu: number, index: number): bigint {
    const at = this.at(cpu, layout.V) + (index & 31) * 16;
    return (this.view.getBigUint64(at + 8, true) << 64n) | this.view.getBigUint64(at, true);
  }

  setV(cpu: number, index: number, value: bigint): void {
    const at = this.at(cpu, layout.V) + (index & 31) * 16;
    this.view.setBigUint64(at, BigInt.asUintN(64, value), true);
    this.view.setBigUint64(at + 8, BigInt.asUintN(64, value >> 64n), true);
  }

  read(cpu: number, register: CpuRegister): bigint {
    if (register in STATE) return this.view.getBigUint64(this.at(cpu, STATE[register as keyof typeof STATE]), true);
    return BigInt(this.view.getUint32(this.at(cpu, STATE32[register as keyof typeof STATE32]), true));
  }

  /** Writes a register as it stands, unchecked; after one that decides about translation call flushTranslations. */
  write(cpu: number, register: CpuRegister, value: bigint): void {
    if (register in STATE) {
      const at = this.at(cpu, STATE[register as keyof typeof STATE]);
      this.view.setBigUint64(at, BigInt.asUintN(64, value), true);
    } else {
      const at = this.at(cpu, STATE32[register as keyof typeof STATE32]);
      this.view.setUint32(at, Number(BigInt.asUintN(32, value)), true);
    }
  }
}
