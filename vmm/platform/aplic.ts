// The APLIC of RV64 machines: one supervisor-level domain in MSI mode (AIA specification, chapter 4). Wired interrupts come in, MSIs
// to the harts' interrupt files (IMSIC pages) go out.
//
//   wire → rectified input → pending & enabled & domaincfg.IE → 4-byte store of EIID to the target hart's page, pending cleared
//
// 32-bit aligned accesses only; what is not a register reads 0.

import type { AccessSize, MmioPort } from "../../host/base/mmio.ts";
import { bytesOf, type Stateful, type StateReader, type StateRecord } from "../../host/base/state.ts";

const SM_INACTIVE = 0;
const SM_DETACHED = 1;
const SM_EDGE_RISE = 4;
const SM_EDGE_FALL = 5;
const SM_LEVEL_HIGH = 6;
const SM_LEVEL_LOW = 7;

const DOMAINCFG_FIXED = 0x80000000;
const DOMAINCFG_IE = 0x100;
const DOMAINCFG_DM = 0x4;

export class Aplic implements MmioPort, Stateful {
  high = 0;
  readonly sources: number;
  /** Sends MSI `eiid` to the interrupt file of hart index `hart`. */
  readonly #send: (hart: number, eiid: number) => void;
  #domaincfg = 0;
  readonly #sourcecfg: Uint8Array;
  readonly #target: Uint32Array;
  readonly #wire: Uint8Array;
  readonly #pending: Uint8Array;
  readonly #enabled: Uint8Array;

  /** `sources`: 1..1023 wires, numbered from 1. */
  constructor(sources: number, send: (hart: number, eiid: number) => void) {
    this.sources = sources;
    this.#send = send;
    this.#sourcecfg = new Uint8Array(sources + 1);
    this.#target = new Uint32Array(sources + 1);
    this.#wire = new Uint8Array(sources + 1);
    this.#pending = new Uint8Array(sources + 1);
    this.#enabled = new Uint8Array(sources + 1);
  }

  /** Level of wire `source`. */
  setWire(source: number, asserted: boolean): void {
    if (source < 1 || source > this.sources) return;
    const before = this.#rectified(source);
    this.#wire[source] = asserted ? 1 : 0;
    this.#inputChanged(source, before);
    this.#forward(source);
  }

  mmioRead(offset: number, size: AccessSize): number {
    if (size === 8) this.high = 0;
    if (size !== 4) return 0;
    if (offset === 0) return (DOMAINCFG_FIXED | this.#domaincfg | DOMAINCFG_DM) >>> 0;
    if (offset >= 0x0004 && offset < 0x1000) return this.#sourcecfg[offset >> 2] ?? 0;
    if (offset >= 0x1c00 && offset < 0x1c80) return this.#word(this.#pending, (offset - 0x1c00) >> 2);
    if (offset >= 0x1d00 && offset < 0x1d80) return this.#inputs((offset - 0x1d00) >> 2);
    if (offset >= 0x1e00 && offset < 0x1e80) return this.#word(this.#enabled, (offset - 0x1e00) >> 2);
    if (offset >= 0x3004 && offset < 0x4000) {
      const source = (offset - 0x3000) >> 2;
      return this.#sourcecfg[source] ? (this.#target[source] ?? 0) : 0;
    }
    return 0;
  }

  mmioWrite(offset: number, size: AccessSize, lo: number, _hi: number): void {
    if (size !== 4) return;
    const value = lo >>> 0;
    if (offset === 0) {
      this.#domaincfg = value & DOMAINCFG_IE;
      for (let source = 1; source <= this.sources; source++) this.#forward(source);
    } else if (offset >= 0x0004 && offset < 0x1000) {
      this.#configure(offset >> 2, value);
    } else if (offset >= 0x1c00 && offset < 0x1c80) {
      this.#each((offset - 0x1c00) >> 2, value, (source) => this.#setPending(source));
    } else if (offset === 0x1cdc || offset === 0x2000) {
      this.#one(value, (source) => this.#setPending(source));
    } else if (offset >= 0x1d00 && offset < 0x1d80) {
      this.#each((offset - 0x1d00) >> 2, value, (source) => this.#clearPending(source));
    } else if (offset === 0x1ddc) {
      this.#one(value, (source) => this.#clearPending(source));
    } else if (offset >= 0x1e00 && offset < 0x1e80) {
      this.#each((offset - 0x1e00) >> 2, value, (source) => this.#enable(source, true));
    } else if (offset === 0x1edc) {
      this.#one(value, (source) => this.#enable(source, true));
    } else if (offset >= 0x1f00 && offset < 0x1f80) {
      this.#each((offset - 0x1f00) >> 2, value, (source) => this.#enable(source, false));
    } else if (offset === 0x1fdc) {
      this.#one(value, (source) => this.#enable(source, false));
    } else if (offset === 0x3000) {
      // genmsi: sent at once, even with IE = 0.
      this.#send(value >>> 18, value & 0x7ff);
    } else if (offset >= 0x3004 && offset < 0x4000) {
      const source = (offset - 0x3000) >> 2;
      if (source <= this.sources && this.#sourcecfg[source] !== SM_INACTIVE) {
        this.#target[source] = value & 0xfffc07ff;
        this.#forward(source);
      }
    }
  }

  #configure(source: number, value: number): void {
    if (source < 1 || source > this.sources) return;
    // A leaf domain cannot delegate (bit 10), and modes 2 and 3 are reserved: both leave the source inactive.
    const mode = value & 0x400 || (value & 7) === 2 || (value & 7) === 3 ? SM_INACTIVE : value & 7;
    this.#sourcecfg[source] = mode;
    if (mode === SM_INACTIVE) {
      this.#pending[source] = 0;
      this.#enabled[source] = 0;
      this.#target[source] = 0;
    } else if (mode !== SM_DETACHED && this.#rectified(source)) {
      this.#pending[source] = 1;
    }
    this.#forward(source);
  }

  /** The wire after inversion; 0 for inactive and detached sources. */
  #rectified(source: number): number {
    const mode = this.#sourcecfg[source]!;
    if (mode === SM_INACTIVE || mode === SM_DETACHED) return 0;
    return this.#wire[source]! ^ (mode === SM_EDGE_FALL || mode === SM_LEVEL_LOW ? 1 : 0);
  }

  #isLevel(source: number): boolean {
    const mode = this.#sourcecfg[source]!;
    return mode === SM_LEVEL_HIGH || mode === SM_LEVEL_LOW;
  }

  #inputChanged(source: number, before: number): void {
    const now = this.#rectified(source);
    if (before === 0 && now === 1) this.#pending[source] = 1;
    else if (now === 0 && this.#isLevel(source)) this.#pending[source] = 0;
  }

  #setPending(source: number): void {
    const mode = this.#sourcecfg[source]!;
    if (mode === SM_INACTIVE) return;
    // A level source becomes pending by software only while its input is high: that is how an EOI re-arms it.
    if (this.#isLevel(source) && this.#rectified(source) === 0) return;
    this.#pending[source] = 1;
    this.#forward(source);
  }

  #clearPending(source: number): void {
    this.#pending[source] = 0;
  }

  #enable(source: number, on: boolean): void {
    if (this.#sourcecfg[source] === SM_INACTIVE) return;
    this.#enabled[source] = on ? 1 : 0;
    this.#forward(source);
  }

  #forward(source: number): void {
    if ((this.#domaincfg & DOMAINCFG_IE) === 0 || !this.#pending[source] || !this.#enabled[source]) return;
    this.#pending[source] = 0;
    const target = this.#target[source]!;
    this.#send(target >>> 18, target & 0x7ff);
  }

  #word(bits: Uint8Array, word: number): number {
    let value = 0;
    for (let i = 0; i < 32; i++) if (bits[word * 32 + i]) value |= 1 << i;
    return value >>> 0;
  }

  #inputs(word: number): number {
    let value = 0;
    for (let i = 0; i < 32; i++) {
      const source = word * 32 + i;
      if (source >= 1 && source <= this.sources && this.#rectified(source)) value |= 1 << i;
    }
    return value >>> 0;
  }

  #each(word: number, mask: number, act: (source: number) => void): void {
    for (let i = 0; i < 32; i++) {
      const source = word * 32 + i;
      if ((mask >>> i) & 1 && source >= 1 && source <= this.sources) act(source);
    }
  }

  #one(source: number, act: (source: number) => void): void {
    if (source >= 1 && source <= this.sources) act(source);
  }

  saveState(): StateRecord {
    return {
      domaincfg: this.#domaincfg,
      sourcecfg: bytesOf(this.#sourcecfg),
      target: [...this.#target],
      wire: bytesOf(this.#wire),
      pending: bytesOf(this.#pending),
      enabled: bytesOf(this.#enabled),
    };
  }

  restoreState(state: StateReader): void {
    this.#domaincfg = state.number("domaincfg");
    state.memory("sourcecfg", this.#sourcecfg);
    state.numbers("target", this.#target);
    state.memory("wire", this.#wire);
    state.memory("pending", this.#pending);
    state.memory("enabled", this.#enabled);
  }
}

/** Source modes, for tests and device trees. */
export const SOURCE_MODES = { SM_DETACHED, SM_EDGE_RISE, SM_EDGE_FALL, SM_LEVEL_HIGH, SM_LEVEL_LOW } as const;
