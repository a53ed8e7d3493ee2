// The RV64 vCPU as the rest of the VMM sees it: up to eight harts in one WebAssembly core, their guest RAM, their registers.
//
//   run(hart, budget)      executes up to `budget` instructions and says why it came back: Exit.Budget, Wfi, Sbi, Stop
//   mmio port              every load and store outside RAM, called from within run()
//   raiseIdentity(hart, n) an MSI: a store of n to the hart's IMSIC page (AIA §3.5), from anywhere, also from within the mmio port
//   now                    virtual time in ns; instructions move it, and so may the VMM (idle time)
//
// The core's memory is one WebAssembly.Memory: the core's own state low, guest RAM behind it at ramOffset (assembly/layout.ts). Whoever
// stores to RAM from outside (devices, loaders) just stores: decoded code is checked against RAM at the guest's next fence.i.
import * as layout from "./assembly/layout.ts";
import { Translator, type TranslatorCore } from "./translator/translator.ts";

/** Why run() returned. */
export const Exit = {
  /** The budget is used up, or the hart gave up the rest of it (wrs): another one's turn. */
  Budget: layout.EXIT_BUDGET,
  /** The hart executed wfi and nothing is pending; pc is behind the wfi. */
  Wfi: layout.EXIT_WFI,
  /** ecall from S-mode; pc is behind it. Arguments are in a0…a7; put error and value into a0, a1. */
  Sbi: layout.EXIT_SBI,
  /** stop() was called from the mmio port. */
  Stop: layout.EXIT_STOP,
} as const;
export type Exit = (typeof Exit)[keyof typeof Exit];

/** Loads and stores outside RAM, naturally aligned. Loads return the low half and leave the high half of an 8-byte one in `high`. */
export interface HartMmioPort {
  readonly high: number;
  load(address: number, size: 1 | 2 | 4 | 8): number;
  store(address: number, size: 1 | 2 | 4 | 8, low: number, high: number): void;
}

export interface Rv64CoreOptions {
  /** build/hart.wasm, compiled. */
  readonly module: WebAssembly.Module;
  /** Guest RAM in bytes: a multiple of 4096, at most 2 GiB; guest-physical 0x80000000. */
  readonly ramBytes: number;
  readonly mmio: HartMmioPort;
  /** 1 to 8; 1 when left out. */
  readonly harts?: number;
  /** Virtual ns an instruction takes; 10 when left out. */
  readonly nsPerInstruction?: number;
  /** Frequency of the time CSR in Hz, a divisor of 10⁹; 10 MHz when left out. */
  readonly timebaseFrequency?: number;
  /** Interrupt identities of each IMSIC file, 63…2047 with the low six bits set; 255 when left out. */
  readonly interruptIdentities?: number;
  /** What of address translation is offered beyond Sv39; everything when left out. */
  readonly translation?: { sv48?: boolean; sv57?: boolean; svpbmt?: boolean; svnapot?: boolean };
  /**
   * Whether hot code is translated to WebAssembly while it runs: faster, the same in everything else. True when left out: code is hot when 32 samples
   * of pc, taken every 16384 instructions, have met it; at most 2048 translations are kept.
   */
  readonly translate?: boolean | { readonly interval: number; readonly samples: number; readonly capacity?: number };
  /** Capacity of the decode cache in 4 KiB pages of code; 3072 when left out (63 MB, touched as used). */
  readonly decodePages?: number;
}

/** CSR-like state that can be read and written from outside, by name. */
const STATE = {
  pc: layout.PC,
  sstatus: layout.SSTATUS,
  sie: layout.SIE,
  stvec: layout.STVEC,
  sscratch: layout.SSCRATCH,
  sepc: layout.SEPC,
  scause: layout.SCAUSE,
  stval: layout.STVAL,
  satp: layout.SATP,
  stimecmp: layout.STIMECMP,
  instret: layout.INSTRET,
} as const;
const STATE32 = {
  mode: layout.MODE,
  fflags: layout.FFLAGS,
  frm: layout.FRM,
  scounteren: layout.SCOUNTEREN,
  senvcfg: layout.SENVCFG,
  eidelivery: layout.EIDELIVERY,
  eithreshold: layout.EITHRESHOLD,
  softwareInterrupt: layout.SSIP,
  topIdentity: layout.TOPEI,
} as const;
export type HartRegister = keyof typeof STATE | keyof typeof STATE32;

interface CoreExports extends TranslatorCore {
  reset(): void;
  run(budget: number): number;
  resume(): number;
  selectHart(index: number): void;
  raiseIdentity(index: number, identity: number): void;
  flushAll(): void;
  refetchInstructions(): void;
  interruptPending(): number;
}

const TWO_32 = 0x1_0000_0000;
const ALL_ONES = 0xffff_ffff_ffff_ffffn;

export class Rv64Core {
  readonly memory: WebAssembly.Memory;
  /** Where guest RAM starts in `memory`. */
  readonly ramOffset: number;
  readonly ramBytes: number;
  readonly harts: number;
  readonly nsPerInstruction: number;
  readonly nsPerTick: number;
  readonly #exports: CoreExports;
  readonly #view: DataView;
  readonly #words: Uint32Array;
  readonly #translator: Translator | null;
  /** The hart in run(), −1 between runs. */
  #running = -1;

  /** Throws RangeError for options outside their ranges. */
  constructor(options: Rv64CoreOptions) {
    const { module, ramBytes, mmio, harts = 1, nsPerInstruction = 10, timebaseFrequency = 10_000_000 } = options;
    const { interruptIdentities = 255, decodePages = 3072, translation = {} } = options;
    const inRange = (value: number, low: number, high: number): boolean =>
      Number.isInteger(value) && value >= low && value <= high;
    if (!inRange(ramBytes, 4096, 2 ** 31) || ramBytes % 4096 !== 0)
      throw new RangeError("guest RAM: whole pages up to 2 GiB");
    if (!inRange(harts, 1, layout.MAX_HARTS)) throw new RangeError("1 to 8 harts");
    if (!inRange(nsPerInstruction, 1, 1e6)) throw new RangeError("an instruction takes 1 to 1000000 ns");
    if (!inRange(1e9 / timebaseFrequency, 1, 1e9)) throw new RangeError("the timebase frequency divides 10^9");
    if (!inRange(interruptIdentities, 63, 2047) || (interruptIdentities & 63) !== 63)
      throw new RangeError("interrupt identities: 63 to 2047 with the low six bits set");
    if (!inRange(decodePages, 4, 65535)) throw new RangeError("4 to 65535 decode pages");

    const core = layout.DECODE_POOL + decodePages * layout.DECODE_PAGE_BYTES;
    this.ramOffset = Math.ceil(core / 65536) * 65536;
    this.ramBytes = ramBytes;
    this.harts = harts;
    this.nsPerInstruction = nsPerInstruction;
    this.nsPerTick = 1e9 / timebaseFrequency;
    const pages = Math.ceil((this.ramOffset + ramBytes) / 65536);
    this.memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
    const view = new DataView(this.memory.buffer);
    this.#view = view;
    this.#words = new Uint32Array(this.memory.buffer, 0, 0x10000 / 4);

    view.setUint32(layout.NS_PER_INSTRUCTION, nsPerInstruction, true);
    view.setUint32(layout.NS_PER_TICK, this.nsPerTick, true);
    view.setUint32(layout.RAM_OFFSET, this.ramOffset, true);
    view.setUint32(layout.RAM_BYTES, ramBytes, true);
    view.setUint32(layout.DECODE_PAGES, decodePages, true);
    view.setUint32(layout.NUM_IDS, interruptIdentities, true);
    view.setUint32(layout.HARTS, harts, true);
    view.setUint32(layout.TLB, layout.TLBS, true);
    const { sv48 = true, sv57 = true, svpbmt = true, svnapot = true } = translation;
    const features =
      (sv48 ? layout.FEATURE_SV48 : 0) |
      (sv57 ? layout.FEATURE_SV57 : 0) |
      (svpbmt ? layout.FEATURE_SVPBMT : 0) |
      (svnapot ? layout.FEATURE_SVNAPOT : 0);
    view.setUint32(layout.FEATURES, features, true);

    const value = layout.MMIO_VALUE / 4;
    const words = this.#words;
    const access = (
      addressLow: number,
      addressHigh: number,
      size: number,
      isStore: number,
      low: number,
      high: number,
    ): number => {
      const upper = addressHigh >>> 0;
      if (upper >= 0x20_0000) return 1; // beyond 2^53 there is nothing
      const address = upper * TWO_32 + (addressLow >>> 0);
      if (isStore) {
        mmio.store(address, size as 1 | 2 | 4 | 8, low >>> 0, high >>> 0);
      } else {
        words[value] = mmio.load(address, size as 1 | 2 | 4 | 8);
        words[value + 1] = size === 8 ? mmio.high : 0;
      }
      return 0;
    };
    const instance = new WebAssembly.Instance(module, {
      env: { memory: this.memory, abort: () => {} },
      vmm: { mmio: access },
    });
    this.#exports = instance.exports as unknown as CoreExports;
    this.#exports.reset();
    const { translate = true } = options;
    const {
      interval,
      samples,
      capacity = 2048,
    } = typeof translate === "object" ? translate : { interval: 16_384, samples: translate ? 32 : 0, capacity: 2048 };
    if (!inRange(interval, 1, 2 ** 20) || !inRange(samples, 0, 255) || !inRange(capacity, 1, 65536))
      throw new RangeError("translation: interval 1 to 2^20, samples 0 to 255, capacity 1 to 65536");
    view.setUint32(layout.INTERVAL, interval, true);
    view.setUint32(layout.TRANSLATE, samples, true);
    this.#translator = samples === 0 ? null : new Translator(this.memory, this.#exports, capacity);
    for (let hart = 0; hart < harts; hart++) this.start(hart, BigInt(layout.RAM_BASE_PAGE) << 12n, 0n);
  }

  /** Guest RAM as bytes. */
  get ram(): Uint8Array {
    return new Uint8Array(this.memory.buffer, this.ramOffset, this.ramBytes);
  }

  // --- running ---

  /** Executes at most `budget` (1 … 2^32 − 1) instructions of a hart. */
  run(hart: number, budget: number): Exit {
    const core = this.#exports;
    core.selectHart(hart);
    this.#running = hart;
    let reason = core.run(budget);
    while (reason === layout.EXIT_TRANSLATE) {
      this.#translator?.translate(this.#words[layout.PAGE_BASE / 4]!, this.#words[layout.SLOT / 4]!);
      reason = core.resume();
    }
    this.#running = -1;
    return reason as Exit;
  }

  /** From the mmio port: ends the slice after at most `instructions` more, so that an event is on time. */
  limitSlice(instructions: number): void {
    const at = layout.REMAINING / 4;
    if (instructions < this.#words[at]!) this.#words[at] = instructions;
  }

  /** From the mmio port: run() returns Exit.Stop after the current instruction. */
  stop(): void {
    this.#words[layout.STOP / 4] = 1;
  }

  /** Virtual time in ns. Exact within the mmio port and between runs. */
  get now(): number {
    return this.#number(layout.NOW);
  }

  /** Moves virtual time; stimecmp of every hart sees it at once. */
  set now(ns: number) {
    this.#words[layout.NOW / 4] = ns % TWO_32;
    this.#words[layout.NOW / 4 + 1] = Math.floor(ns / TWO_32);
  }

  /** Regions of guest code translated so far. */
  get translations(): number {
    return this.#translator?.compiled ?? 0;
  }

  /** Instructions executed by all harts; a trapped one counts. */
  get executed(): number {
    return this.#number(layout.EXECUTED);
  }

  /** When the hart's stimecmp will raise its timer interrupt, in ns; Infinity if beyond 2^53 ns. */
  timerDeadline(hart: number): number {
    const ticks = this.#view.getBigUint64(this.#at(hart, layout.STIMECMP), true);
    const ns = ticks * BigInt(this.nsPerTick);
    return ns >= 1n << 53n ? Number.POSITIVE_INFINITY : Number(ns);
  }

  /** True if the hart has an interrupt that would end a wfi: pending and enabled in sie. */
  interruptPending(hart: number): boolean {
    const pending = this.#as(hart, () => this.#exports.interruptPending());
    return pending !== 0;
  }

  // --- interrupts ---

  /** A 4-byte store of `identity` to seteipnum_le of the hart's IMSIC page. Identities that do not exist are ignored. */
  raiseIdentity(hart: number, identity: number): void {
    if (hart >= 0 && hart < this.harts) this.#exports.raiseIdentity(hart, identity >>> 0);
  }

  /** Sets or clears sip.SSIP (SBI IPI). */
  setSoftwareInterrupt(hart: number, pending: boolean): void {
    this.#view.setUint32(this.#at(hart, layout.SSIP), pending ? 2 : 0, true);
  }

  // --- SBI ---

  /**
   * Brings a hart to the state SBI HSM defines at start: S-mode, satp 0, sstatus.SIE 0, a0 = hart id, a1 = opaque. Everything else is zero and
   * its timer is off.
   */
  start(hart: number, pc: bigint, opaque: bigint): void {
    this.#as(hart, () => {
      this.#exports.flushAll();
      this.#exports.refetchInstructions();
      this.#words.fill(0, layout.HART_STATE / 4, (layout.HART_STATE + layout.HART_STATE_BYTES) / 4);
      this.#view.setBigUint64(layout.RESERVATION, ALL_ONES, true);
    });
    this.write(hart, "stimecmp", ALL_ONES);
    this.write(hart, "mode", 1n);
    this.write(hart, "pc", pc & ~1n);
    this.setX(hart, 10, BigInt(hart));
    this.setX(hart, 11, opaque);
  }

  /** RFENCE: forgets the hart's translations. */
  flushTranslations(hart: number): void {
    this.#as(hart, () => this.#exports.flushAll());
  }

  /** RFENCE: fence.i on the hart. */
  fenceInstructions(hart: number): void {
    this.#as(hart, () => this.#exports.refetchInstructions());
  }

  // --- registers ---

  /** Integer register, unsigned. */
  x(hart: number, index: number): bigint {
    return this.#view.getBigUint64(this.#at(hart, layout.X) + (index & 31) * 8, true);
  }

  setX(hart: number, index: number, value: bigint): void {
    if ((index & 31) !== 0)
      this.#view.setBigUint64(this.#at(hart, layout.X) + (index & 31) * 8, BigInt.asUintN(64, value), true);
  }

  /** Low half of an integer register, without a bigint. */
  xLow(hart: number, index: number): number {
    return this.#view.getUint32(this.#at(hart, layout.X) + (index & 31) * 8, true);
  }

  xHigh(hart: number, index: number): number {
    return this.#view.getUint32(this.#at(hart, layout.X) + (index & 31) * 8 + 4, true);
  }

  /** Floating-point register, raw bits. */
  f(hart: number, index: number): bigint {
    return this.#view.getBigUint64(this.#at(hart, layout.F) + (index & 31) * 8, true);
  }

  setF(hart: number, index: number, value: bigint): void {
    this.#view.setBigUint64(this.#at(hart, layout.F) + (index & 31) * 8, BigInt.asUintN(64, value), true);
  }

  read(hart: number, register: HartRegister): bigint {
    if (register in STATE) return this.#view.getBigUint64(this.#at(hart, STATE[register as keyof typeof STATE]), true);
    return BigInt(this.#view.getUint32(this.#at(hart, STATE32[register as keyof typeof STATE32]), true));
  }

  /** Writes a register as it stands, unchecked; after satp or sstatus.MXR call flushTranslations. */
  write(hart: number, register: HartRegister, value: bigint): void {
    if (register in STATE) {
      const at = this.#at(hart, STATE[register as keyof typeof STATE]);
      this.#view.setBigUint64(at, BigInt.asUintN(64, value), true);
    } else {
      const at = this.#at(hart, STATE32[register as keyof typeof STATE32]);
      this.#view.setUint32(at, Number(BigInt.asUintN(32, value)), true);
    }
  }

  /** Does something to a hart that the core does to the selected one only. From within the mmio port, the running hart is selected again behind it. */
  #as<T>(hart: number, action: () => T): T {
    this.#exports.selectHart(hart);
    const result = action();
    if (this.#running >= 0) this.#exports.selectHart(this.#running);
    return result;
  }

  /** Where a field of a hart's state block lies at present. */
  #at(hart: number, field: number): number {
    if (this.#words[layout.HART / 4] === hart) return field;
    return layout.SAVED_HARTS + hart * layout.HART_STATE_BYTES + field - layout.HART_STATE;
  }

  #number(at: number): number {
    return this.#words[at / 4]! + this.#words[at / 4 + 1]! * TWO_32;
  }
}
