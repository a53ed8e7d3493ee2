// A vCPU core as the VMM drives it, whatever its instruction set: a WebAssembly module (a front end compiled with assembly/), its memory, slices and time.
//
//   run(hart, budget)      executes up to `budget` instructions and says why it came back: Exit.Budget, Wfi, Call, Stop
//   mmio port              every load and store outside RAM, called from within run()
//   now                    virtual time in ns; instructions move it, and so may the VMM (idle time)
//
// The core's memory is one WebAssembly.Memory: the core's own state low, guest RAM behind it at ramOffset (assembly/layout.ts). Whoever stores to RAM
// from outside (devices, loaders) just stores: decoded code is checked against RAM at the guest's next fence of instructions.
import {
  bytesOf,
  type KeepBytes,
  type Stateful,
  type StateReader,
  type StateRecord,
} from "../../../host/base/state.ts";
import * as layout from "./assembly/layout.ts";
import type { InstructionSet } from "./translator/instruction-set.ts";
import { Translator, type TranslatorCore } from "./translator/translator.ts";

/** Why run() returned. */
export const Exit = {
  /** The budget is used up, or the hart gave up the rest of it (RISC-V wrs): another one's turn. */
  Budget: layout.EXIT_BUDGET,
  /** The hart executed wfi and nothing is pending; pc is behind the wfi. */
  Wfi: layout.EXIT_WFI,
  /** A call of the firmware: RISC-V's ecall from S-mode (SBI). pc is behind it. */
  Call: layout.EXIT_CALL,
  /** stop() was called from the mmio port. */
  Stop: layout.EXIT_STOP,
  /** Before an instruction that a debugger waits for; `watchHit` says whether it is a breakpoint. */
  Break: layout.EXIT_BREAK,
} as const;
export type Exit = (typeof Exit)[keyof typeof Exit];

/** Loads and stores outside RAM, naturally aligned. Loads return the low half and leave the high half of an 8-byte one in `high`. */
export interface HartMmioPort {
  readonly high: number;
  load(address: number, size: 1 | 2 | 4 | 8): number;
  store(address: number, size: 1 | 2 | 4 | 8, low: number, high: number): void;
}

export interface CoreOptions {
  /** The compiled core. */
  readonly module: WebAssembly.Module;
  /** Guest RAM in bytes: a multiple of 4096, at most 2 GiB; guest-physical 0x80000000. */
  readonly ramBytes: number;
  readonly mmio: HartMmioPort;
  /** 1 to 8; 1 when left out. */
  readonly harts?: number;
  /** Virtual ns an instruction takes; 10 when left out. */
  readonly nsPerInstruction?: number;
  /** Frequency of the architecture's timer in Hz, a divisor of 10⁹; 10 MHz when left out. */
  readonly timebaseFrequency?: number;
  /**
   * Whether hot code is translated to WebAssembly while it runs: faster, the same in everything else. True when left out: code is hot when 32 samples
   * of pc, taken every 16384 instructions, have met it; at most 2048 translations are kept.
   */
  readonly translate?: boolean | { readonly interval: number; readonly samples: number; readonly capacity?: number };
  /** Capacity of the decode cache in 4 KiB pages of code; 3072 when left out (63 MB, touched as used). */
  readonly decodePages?: number;
}

/** RAM that a debugger watches: guest-physical, whole within RAM. */
export interface Watchpoint {
  readonly address: number;
  readonly bytes: number;
  readonly loads: boolean;
  readonly stores: boolean;
}

/** What a CPU is about to touch: which watchpoint, and the guest-physical address. */
export interface WatchHit {
  readonly index: number;
  readonly address: number;
}

const RAM_BASE = layout.RAM_BASE_PAGE * 4096;

/** What every core exports (assembly/run.ts, with a front end's name filled in). */
export interface EngineExports extends TranslatorCore {
  reset(): void;
  run(budget: number): number;
  resume(): number;
  selectHart(index: number): void;
  flushAll(): void;
  refetchInstructions(): void;
  markTlbs(): void;
  interruptPending(): number;
}

const TWO_32 = 0x1_0000_0000;

/** Words that options decide, and an instruction set's. */
const CONSTANTS: readonly number[] = [
  layout.NS_PER_INSTRUCTION,
  layout.NS_PER_TICK,
  layout.RAM_OFFSET,
  layout.RAM_BYTES,
  layout.DECODE_PAGES,
  layout.HARTS,
  layout.INTERVAL,
  layout.TINY_BEFORE_ROUNDING,
  ...Array.from({ length: 0x80 / 4 }, (_, n) => layout.FRONT_END_MACHINE + 4 * n),
];

export class EngineCore<Exports extends EngineExports> implements Stateful {
  readonly memory: WebAssembly.Memory;
  /** Where guest RAM starts in `memory`. */
  readonly ramOffset: number;
  readonly ramBytes: number;
  readonly harts: number;
  readonly nsPerInstruction: number;
  readonly nsPerTick: number;
  protected readonly exports: Exports;
  protected readonly view: DataView;
  protected readonly words: Uint32Array; // not state: a view of memory
  readonly #translator: Translator | null;
  /** The hart in run(), −1 between runs. */
  #running = -1; // not state: there is state between runs only

  /** Throws RangeError for options outside their ranges. `prepare` writes the front end's part of the machine's state. */
  protected constructor(options: CoreOptions, instructionSet: InstructionSet, prepare: (view: DataView) => void) {
    const { module, ramBytes, mmio, harts = 1, nsPerInstruction = 10, timebaseFrequency = 10_000_000 } = options;
    const { decodePages = 3072, translate = true } = options;
    if (!inRange(ramBytes, 4096, 2 ** 31) || ramBytes % 4096 !== 0)
      throw new RangeError("guest RAM: whole pages up to 2 GiB");
    if (!inRange(harts, 1, layout.MAX_HARTS)) throw new RangeError("1 to 8 harts");
    if (!inRange(nsPerInstruction, 1, 1e6)) throw new RangeError("an instruction takes 1 to 1000000 ns");
    if (!inRange(1e9 / timebaseFrequency, 1, 1e9)) throw new RangeError("the timebase frequency divides 10^9");
    if (!inRange(decodePages, 4, 65535)) throw new RangeError("4 to 65535 decode pages");
    const {
      interval,
      samples,
      capacity = 2048,
    } = typeof translate === "object" ? translate : { interval: 16_384, samples: translate ? 32 : 0, capacity: 2048 };
    if (!inRange(interval, 1, 2 ** 20) || !inRange(samples, 0, 255) || !inRange(capacity, 1, 65536))
      throw new RangeError("translation: interval 1 to 2^20, samples 0 to 255, capacity 1 to 65536");

    const core = layout.DECODE_POOL + decodePages * layout.DECODE_PAGE_BYTES;
    this.ramOffset = Math.ceil(core / 65536) * 65536;
    this.ramBytes = ramBytes;
    this.harts = harts;
    this.nsPerInstruction = nsPerInstruction;
    this.nsPerTick = 1e9 / timebaseFrequency;
    const pages = Math.ceil((this.ramOffset + ramBytes) / 65536);
    this.memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
    const view = new DataView(this.memory.buffer);
    this.view = view;
    this.words = new Uint32Array(this.memory.buffer, 0, 0x10000 / 4);

    view.setUint32(layout.NS_PER_INSTRUCTION, nsPerInstruction, true);
    view.setUint32(layout.NS_PER_TICK, this.nsPerTick, true);
    view.setUint32(layout.RAM_OFFSET, this.ramOffset, true);
    view.setUint32(layout.RAM_BYTES, ramBytes, true);
    view.setUint32(layout.DECODE_PAGES, decodePages, true);
    view.setUint32(layout.HARTS, harts, true);
    view.setUint32(layout.TLB, layout.TLBS, true);
    view.setUint32(layout.INTERVAL, interval, true);
    view.setUint32(layout.TRANSLATE, samples, true);
    prepare(view);
    const instance = new WebAssembly.Instance(module, {
      env: { memory: this.memory, abort: () => {} },
      vmm: { mmio: mmioImport(mmio, this.words) },
    });
    this.exports = instance.exports as unknown as Exports;
    this.exports.reset();
    this.#translator = samples === 0 ? null : new Translator(this.memory, this.exports, instructionSet, capacity);
  }

  /** Guest RAM as bytes. */
  get ram(): Uint8Array {
    return new Uint8Array(this.memory.buffer, this.ramOffset, this.ramBytes);
  }

  /** Executes at most `budget` (1 … 2^32 − 1) instructions of a hart. */
  run(hart: number, budget: number): Exit {
    const core = this.exports;
    core.selectHart(hart);
    this.#running = hart;
    let reason = core.run(budget);
    while (reason === layout.EXIT_TRANSLATE) {
      this.#translator?.translate(this.words[layout.PAGE_BASE / 4]!, this.words[layout.SLOT / 4]!);
      reason = core.resume();
    }
    this.#running = -1;
    return reason as Exit;
  }

  /** From the mmio port: ends the slice after at most `instructions` more, so that an event is on time. */
  limitSlice(instructions: number): void {
    const at = layout.REMAINING / 4;
    if (instructions < this.words[at]!) this.words[at] = instructions;
  }

  /** From the mmio port: run() returns Exit.Stop after the current instruction. */
  stop(): void {
    this.words[layout.STOP / 4] = 1;
  }

  /** The hart in run(): whose access one of the mmio port is. 0 between runs. */
  get running(): number {
    return Math.max(0, this.#running);
  }

  /** Virtual time in ns. Exact within the mmio port and between runs. */
  get now(): number {
    return this.#number(layout.NOW);
  }

  /** Moves virtual time; the timer of every hart sees it at once. */
  set now(ns: number) {
    this.words[layout.NOW / 4] = ns % TWO_32;
    this.words[layout.NOW / 4 + 1] = Math.floor(ns / TWO_32);
  }

  /** Regions of guest code translated so far. */
  get translations(): number {
    return this.#translator?.compiled ?? 0;
  }

  /** Instructions executed by all harts; a trapped one counts. */
  get executed(): number {
    return this.#number(layout.EXECUTED);
  }

  /** Address of the hart's next instruction, between runs. */
  programCounter(hart: number): bigint {
    return this.view.getBigUint64(this.at(hart, layout.PC), true);
  }

  /** True if the hart has an interrupt that would end a wfi. */
  interruptPending(hart: number): boolean {
    const pending = this.as(hart, () => this.exports.interruptPending());
    return pending !== 0;
  }

  // --- a debugger: between runs; what it sets changes nothing that the guest can see, and is no state of the core's (assembly/debug.ts) ---

  /** Virtual addresses at which harts stop, at most MAX_BREAKPOINTS; replaces those before. */
  setBreakpoints(addresses: readonly bigint[]): void {
    if (addresses.length > layout.MAX_BREAKPOINTS)
      throw new RangeError(`more than ${layout.MAX_BREAKPOINTS} breakpoints`);
    addresses.forEach((address, n) => {
      this.view.setBigUint64(layout.BREAKPOINT_LIST + 8 * n, BigInt.asUintN(64, address), true);
    });
    this.words[layout.BREAKPOINTS / 4] = addresses.length;
    this.exports.markTlbs();
  }

  /** RAM before whose loads or stores harts stop, at most MAX_WATCHPOINTS ranges; replaces those before. */
  setWatchpoints(watchpoints: readonly Watchpoint[]): void {
    if (watchpoints.length > layout.MAX_WATCHPOINTS)
      throw new RangeError(`more than ${layout.MAX_WATCHPOINTS} watchpoints`);
    watchpoints.forEach(({ address, bytes, loads, stores }, n) => {
      const at = (layout.WATCHPOINT_LIST + 16 * n) / 4;
      const first = address - RAM_BASE;
      if (bytes < 1 || first < 0 || first + bytes > this.ramBytes) throw new RangeError("a watchpoint lies in RAM");
      this.words[at] = this.ramOffset + first;
      this.words[at + 1] = this.ramOffset + first + bytes - 1;
      this.words[at + 2] = (loads ? layout.WATCH_LOADS : 0) | (stores ? layout.WATCH_STORES : 0);
    });
    this.words[layout.WATCHPOINTS / 4] = watchpoints.length;
    this.exports.markTlbs();
  }

  /** After Exit.Break: the watchpoint that the hart is about to touch; null: it stands at a breakpoint. */
  get watchHit(): WatchHit | null {
    const hit = this.words[layout.WATCH_HIT / 4]!;
    if (hit === 0) return null;
    return { index: hit - 1, address: this.words[layout.WATCH_ADDRESS / 4]! - this.ramOffset + RAM_BASE };
  }

  /** Instructions that were left of its budget when run() returned. */
  get unused(): number {
    return this.words[layout.REMAINING / 4]!;
  }

  /** Instructions that a hart has executed, between runs. */
  instructionsOf(hart: number): number {
    const at = this.at(hart, layout.INSTRET) / 4;
    return this.words[at]! + this.words[at + 1]! * TWO_32;
  }

  /** Forgets the hart's translations. */
  flushTranslations(hart: number): void {
    this.as(hart, () => this.exports.flushAll());
  }

  /** A fence of instructions on the hart: decoded code is compared with RAM before it runs again. */
  fenceInstructions(hart: number): void {
    this.as(hart, () => this.exports.refetchInstructions());
  }

  /** Brings a hart to a state of zeros; `fill` writes what is not zero while the hart is the selected one. */
  protected clear(hart: number, fill: () => void): void {
    this.as(hart, () => {
      this.exports.flushAll();
      this.exports.refetchInstructions();
      this.words.fill(0, layout.HART_STATE / 4, (layout.HART_STATE + layout.HART_STATE_BYTES) / 4);
      fill();
    });
  }

  /** Does something to a hart that the core does to the selected one only. From within the mmio port, the running hart is selected again behind it. */
  protected as<T>(hart: number, action: () => T): T {
    this.exports.selectHart(hart);
    const result = action();
    if (this.#running >= 0) this.exports.selectHart(this.#running);
    return result;
  }

  /** Where a field of a hart's state block lies at present. */
  protected at(hart: number, field: number): number {
    if (this.words[layout.HART / 4] === hart) return field;
    return layout.SAVED_HARTS + hart * layout.HART_STATE_BYTES + field - layout.HART_STATE;
  }

  #number(at: number): number {
    return this.words[at / 4]! + this.words[at / 4 + 1]! * TWO_32;
  }

  /**
   * The memory below guest RAM as it stands, to the last decode page in use: registers, TLBs and decoded code are what a guest that has not
   * fenced yet goes on with, so they are no mere cache. RAM is the machine's. Throws from within the mmio port.
   */
  saveState(keep: KeepBytes = bytesOf): StateRecord {
    if (this.#running >= 0) throw new Error("a core has no state within run()");
    const pages = this.words[layout.DECODE_USED / 4]!;
    const length = layout.DECODE_POOL + pages * layout.DECODE_PAGE_BYTES;
    return {
      memory: this.#undebugged(() => {
        this.#clearJumps();
        return keep(this.#below(length));
      }),
    };
  }

  /** Does something while no debugger has left its marks in memory. */
  #undebugged<T>(action: () => T): T {
    const debug = new Uint8Array(this.memory.buffer, layout.DEBUG, layout.DEBUG_END - layout.DEBUG);
    const held = debug.slice();
    debug.fill(0);
    this.exports.markTlbs();
    try {
      return action();
    } finally {
      debug.set(held);
      // What has been reported may not have happened yet.
      debug.fill(0, layout.WATCH_HIT - layout.DEBUG, layout.BREAKPOINT_LIST - layout.DEBUG);
      this.exports.markTlbs();
    }
  }

  restoreState(state: StateReader): void {
    const saved = state.bytes("memory").slice();
    this.#check(saved, state);
    this.#undebugged(() => {
      this.#below(saved.length).set(saved);
      this.#clearJumps();
    });
  }

  /** What translated code has found is no state: it is found again. */
  #clearJumps(): void {
    this.#below(layout.JUMPS_END).fill(0, layout.JUMPS);
  }

  *stateParts(): Generator<readonly [string, Stateful]> {
    if (this.#translator !== null) yield ["translator", this.#translator];
  }

  #below(length: number): Uint8Array {
    return new Uint8Array(this.memory.buffer, 0, length);
  }

  /** That the memory is one of a core like this, and that what points somewhere points into it or into RAM. */
  #check(saved: Uint8Array, state: StateReader): void {
    const wrong = (what: string): never => state.fail("memory", what);
    if (saved.length < layout.DECODE_POOL) wrong("ends before the decode pages");
    const view = new DataView(saved.buffer);
    const word = (at: number): number => view.getUint32(at, true);
    for (const at of CONSTANTS) if (word(at) !== this.words[at / 4]) wrong("is of a core made with other options");
    const pages = word(layout.DECODE_USED);
    const length = layout.DECODE_POOL + pages * layout.DECODE_PAGE_BYTES;
    if (pages > word(layout.DECODE_PAGES) || saved.length !== length) wrong(`does not end with ${pages} decode pages`);
    const hart = word(layout.HART);
    if (hart >= this.harts || word(layout.TLB) !== layout.TLBS + hart * layout.TLB_BYTES) wrong("selects no hart");
    if (word(layout.ENTRIES_USED) > layout.MAX_ENTRIES) wrong("has too many entries of translated code");
    const ramPages = this.ramBytes / 4096;
    for (let page = 0; page < ramPages; page++) {
      if (view.getUint16(layout.PAGE_MAP + 2 * page, true) > pages) wrong(`maps page ${page} of RAM to no decode page`);
    }
    for (let at = layout.DECODE_POOL; at < length; at += layout.DECODE_PAGE_BYTES) {
      if (word(at + layout.DECODE_PHYSICAL) >= ramPages) wrong("has a decode page of no RAM");
    }
    const tlbs = this.harts * layout.TLB_BYTES;
    for (let at = 0; at < tlbs; at += 16) {
      const low = word(layout.TLBS + at);
      if ((low & 0xfff) !== 0) continue; // never hit
      const target = word(layout.TLBS + at + 8);
      const isFetch = at % layout.TLB_BYTES >= layout.TLB_FETCH;
      const place = isFetch ? target - layout.DECODE_POOL : ((target + low) >>> 0) - this.ramOffset;
      const unit = isFetch ? layout.DECODE_PAGE_BYTES : 4096;
      if (place < 0 || place % unit !== 0 || place / unit >= (isFetch ? pages : ramPages)) {
        wrong(`has a TLB entry that leads nowhere (${at / 16})`);
      }
    }
  }
}

/** True for an integer within the bounds. */
export function inRange(value: number, low: number, high: number): boolean {
  return Number.isInteger(value) && value >= low && value <= high;
}

/** The core's import (assembly/imports.ts) on the port. */
function mmioImport(mmio: HartMmioPort, words: Uint32Array) {
  const value = layout.MMIO_VALUE / 4;
  return (
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
}
