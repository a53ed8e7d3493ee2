// The RV64 vCPU as the rest of the VMM sees it: up to eight harts in one WebAssembly core, their guest RAM, their registers. What does not depend on the
// instruction set (running, time, RAM, the mmio port) is EngineCore's.
//
//   raiseIdentity(hart, n) an MSI: a store of n to the hart's IMSIC page (AIA §3.5), from anywhere, also from within the mmio port
import { FLOAT_FLAGS, INSTRET, PC, RAM_BASE_PAGE } from "../engine/assembly/layout.ts";
import { type CoreOptions, EngineCore, type EngineExports, inRange } from "../engine/core.ts";
import * as layout from "./assembly/layout.ts";
import { RV64 } from "./translator/rv64.ts";

export { Exit, type HartMmioPort } from "../engine/core.ts";

export interface Rv64CoreOptions extends CoreOptions {
  /** Interrupt identities of each IMSIC file, 63…2047 with the low six bits set; 255 when left out. */
  readonly interruptIdentities?: number;
  /** What of address translation is offered beyond Sv39; everything when left out. */
  readonly translation?: { sv48?: boolean; sv57?: boolean; svpbmt?: boolean; svnapot?: boolean };
}

/** CSR-like state that can be read and written from outside, by name. */
const STATE = {
  pc: PC,
  sstatus: layout.SSTATUS,
  sie: layout.SIE,
  stvec: layout.STVEC,
  sscratch: layout.SSCRATCH,
  sepc: layout.SEPC,
  scause: layout.SCAUSE,
  stval: layout.STVAL,
  satp: layout.SATP,
  stimecmp: layout.STIMECMP,
  instret: INSTRET,
} as const;
const STATE32 = {
  mode: layout.MODE,
  fflags: FLOAT_FLAGS,
  frm: layout.FRM,
  scounteren: layout.SCOUNTEREN,
  senvcfg: layout.SENVCFG,
  eidelivery: layout.EIDELIVERY,
  eithreshold: layout.EITHRESHOLD,
  softwareInterrupt: layout.SSIP,
  topIdentity: layout.TOPEI,
} as const;
export type HartRegister = keyof typeof STATE | keyof typeof STATE32;

interface Rv64Exports extends EngineExports {
  raiseIdentity(index: number, identity: number): void;
}

const ALL_ONES = 0xffff_ffff_ffff_ffffn;

export class Rv64Core extends EngineCore<Rv64Exports> {
  /** `module`: build/hart.wasm, compiled. Throws RangeError for options outside their ranges. */
  constructor(options: Rv64CoreOptions) {
    const { interruptIdentities = 255, translation = {} } = options;
    if (!inRange(interruptIdentities, 63, 2047) || (interruptIdentities & 63) !== 63)
      throw new RangeError("interrupt identities: 63 to 2047 with the low six bits set");
    const { sv48 = true, sv57 = true, svpbmt = true, svnapot = true } = translation;
    const features =
      (sv48 ? layout.FEATURE_SV48 : 0) |
      (sv57 ? layout.FEATURE_SV57 : 0) |
      (svpbmt ? layout.FEATURE_SVPBMT : 0) |
      (svnapot ? layout.FEATURE_SVNAPOT : 0);
    super(options, RV64, (view) => {
      view.setUint32(layout.NUM_IDS, interruptIdentities, true);
      view.setUint32(layout.FEATURES, features, true);
    });
    for (let hart = 0; hart < this.harts; hart++) this.start(hart, BigInt(RAM_BASE_PAGE) << 12n, 0n);
  }

  /** When the hart's stimecmp will raise its timer interrupt, in ns; Infinity if beyond 2^53 ns. */
  timerDeadline(hart: number): number {
    const ticks = this.view.getBigUint64(this.at(hart, layout.STIMECMP), true);
    const ns = ticks * BigInt(this.nsPerTick);
    return ns >= 1n << 53n ? Number.POSITIVE_INFINITY : Number(ns);
  }

  // --- interrupts ---

  /** A 4-byte store of `identity` to seteipnum_le of the hart's IMSIC page. Identities that do not exist are ignored. */
  raiseIdentity(hart: number, identity: number): void {
    if (hart >= 0 && hart < this.harts) this.exports.raiseIdentity(hart, identity >>> 0);
  }

  /** Sets or clears sip.SSIP (SBI IPI). */
  setSoftwareInterrupt(hart: number, pending: boolean): void {
    this.view.setUint32(this.at(hart, layout.SSIP), pending ? 2 : 0, true);
  }

  // --- SBI: Exit.Call. Arguments are in a0…a7; put error and value into a0, a1 ---

  /**
   * Brings a hart to the state SBI HSM defines at start: S-mode, satp 0, sstatus.SIE 0, a0 = hart id, a1 = opaque. Everything else is zero and
   * its timer is off.
   */
  start(hart: number, pc: bigint, opaque: bigint): void {
    this.clear(hart, () => this.view.setBigUint64(layout.RESERVATION, ALL_ONES, true));
    this.write(hart, "stimecmp", ALL_ONES);
    this.write(hart, "mode", 1n);
    this.write(hart, "pc", pc & ~1n);
    this.setX(hart, 10, BigInt(hart));
    this.setX(hart, 11, opaque);
  }

  // --- registers ---

  /** Integer register, unsigned. */
  x(hart: number, index: number): bigint {
    return this.view.getBigUint64(this.at(hart, layout.X) + (index & 31) * 8, true);
  }

  setX(hart: number, index: number, value: bigint): void {
    if ((index & 31) !== 0)
      this.view.setBigUint64(this.at(hart, layout.X) + (index & 31) * 8, BigInt.asUintN(64, value), true);
  }

  /** Low half of an integer register, without a bigint. */
  xLow(hart: number, index: number): number {
    return this.view.getUint32(this.at(hart, layout.X) + (index & 31) * 8, true);
  }

  xHigh(hart: number, index: number): number {
    return this.view.getUint32(this.at(hart, layout.X) + (index & 31) * 8 + 4, true);
  }

  /** Floating-point register, raw bits. */
  f(hart: number, index: number): bigint {
    return this.view.getBigUint64(this.at(hart, layout.F) + (index & 31) * 8, true);
  }

  setF(hart: number, index: number, value: bigint): void {
    this.view.setBigUint64(this.at(hart, layout.F) + (index & 31) * 8, BigInt.asUintN(64, value), true);
  }

  read(hart: number, register: HartRegister): bigint {
    if (register in STATE) return this.view.getBigUint64(this.at(hart, STATE[register as keyof typeof STATE]), true);
    return BigInt(this.view.getUint32(this.at(hart, STATE32[register as keyof typeof STATE32]), true));
  }

  /** Writes a register as it stands, unchecked; after satp or sstatus.MXR call flushTranslations. */
  write(hart: number, register: HartRegister, value: bigint): void {
    if (register in STATE) {
      const at = this.at(hart, STATE[register as keyof typeof STATE]);
      this.view.setBigUint64(at, BigInt.asUintN(64, value), true);
    } else {
      const at = this.at(hart, STATE32[register as keyof typeof STATE32]);
      this.view.setUint32(at, Number(BigInt.asUintN(32, value)), true);
    }
  }
}
