// Small bare-metal RV64 programs for machine tests, put together word by word (encodings: vcpu/riscv64/encode.ts, from the unprivileged
// specification), so that no compiler is needed. Registers by number; t0 (5) and t1 (6) are scratch of the composed steps.

import type { KernelImage } from "../../vmm/platform/kernel-image.ts";
import { addi, b, csr, ECALL, i, j, load, lui, store, WFI } from "./vcpu/riscv64/encode.ts";

export const T0 = 5;
export const T1 = 6;
export const S0 = 8;
export const A0 = 10;
export const A1 = 11;
const A6 = 16;
const A7 = 17;

export const CSR = {
  sie: 0x104,
  sip: 0x144,
  stimecmp: 0x14d,
  siselect: 0x150,
  sireg: 0x151,
  stopei: 0x15c,
  time: 0xc01,
} as const;

export const SRST = 0x53525354;
export const HSM = 0x48534d;

const LOAD = { 1: 4, 2: 5, 4: 2, 8: 3 } as const;
const STORE = { 1: 0, 2: 1, 4: 2, 8: 3 } as const;
type Size = 1 | 2 | 4 | 8;

export class Program {
  readonly words: number[] = [];

  /** Offset of the next instruction. */
  get here(): number {
    return this.words.length * 4;
  }

  emit(...words: number[]): this {
    this.words.push(...words);
    return this;
  }

  /** rd = value, any 64-bit value. */
  li(rd: number, value: number | bigint): this {
    const wide = BigInt.asIntN(64, BigInt(value));
    if (wide >= -0x8000_0000n && wide < 0x8000_0000n) {
      const low = Number(BigInt.asIntN(12, wide));
      this.emit(lui(rd, Number(((wide - BigInt(low)) >> 12n) & 0xfffffn)));
      return this.emit(i(0x1b, 0, rd, rd, low)); // addiw
    }
    const low = BigInt.asIntN(12, wide);
    this.li(rd, (wide - low) >> 12n);
    return this.emit(i(0x13, 1, rd, rd, 12), addi(rd, rd, Number(low))); // slli, addi
  }

  store(size: Size, address: number, value: number | bigint): this {
    return this.li(T0, address)
      .li(T1, value)
      .emit(store(STORE[size], T0, T1, 0));
  }

  storeRegister(size: Size, address: number, rs: number): this {
    return this.li(T0, address).emit(store(STORE[size], T0, rs, 0));
  }

  /** Zero-extended (4 bytes: sign-extended). */
  load(size: Size, rd: number, address: number): this {
    return this.li(T0, address).emit(load(LOAD[size], rd, T0, 0));
  }

  csrWrite(number_: number, value: number | bigint): this {
    return this.li(T0, value).emit(csr(1, 0, number_, T0));
  }

  csrRead(rd: number, number_: number): this {
    return this.emit(csr(2, rd, number_, 0));
  }

  /** Enables interrupt identity `n` (below 64) in this hart's IMSIC file and delivers what is enabled to sip.SEIP. */
  enableIdentity(n: number): this {
    return this.csrWrite(CSR.siselect, 0xc0)
      .csrWrite(CSR.sireg, 1n << BigInt(n))
      .csrWrite(CSR.siselect, 0x70)
      .csrWrite(CSR.sireg, 1)
      .csrWrite(CSR.sie, 1 << 9);
  }

  wfi(): this {
    return this.emit(WFI);
  }

  /** a0, a1 = result. */
  sbi(extension: number, fid: number, a0: number | bigint = 0, a1: number | bigint = 0, a2: number | bigint = 0): this {
    this.li(A0, a0).li(A1, a1).li(12, a2);
    return this.li(A6, fid).li(A7, extension).emit(ECALL);
  }

  /** SRST: 0 shutdown, 1 cold, 2 warm reboot. */
  reset(kind = 0, reason = 0): this {
    return this.sbi(SRST, 0, kind, reason);
  }

  print(uart: number, text: string): this {
    for (const character of text) this.store(1, uart, character.charCodeAt(0));
    return this;
  }

  /** Jumps to an offset. */
  jump(to: number): this {
    return this.emit(j(0, to - this.here));
  }

  /** Branches back to `to` while rs is zero (`equal`) or not zero. */
  branchZero(rs: number, equal: boolean, to: number): this {
    return this.emit(b(equal ? 0 : 1, rs, 0, to - this.here));
  }

  /** Runs `body` only if rs1 < rs2 (unsigned). */
  ifLess(rs1: number, rs2: number, body: (program: Program) => void): this {
    const at = this.words.length;
    this.emit(0);
    body(this);
    this.words[at] = b(7, rs1, rs2, this.here - at * 4); // bgeu over the body
    return this;
  }

  get bytes(): Uint8Array {
    return new Uint8Array(Uint32Array.from(this.words).buffer);
  }

  /** As a kernel that a machine loads at RAM base. */
  get kernel(): KernelImage {
    const { bytes } = this;
    return {
      architecture: "riscv64",
      format: "Image",
      relocatable: true,
      entry: 0,
      segments: [{ address: 0, bytes, memoryBytes: bytes.length }],
    };
  }

  /** As a file in Linux's Image format: a header whose first instruction jumps over it. */
  get imageFile(): Uint8Array {
    const file = new Uint8Array(64 + this.bytes.length);
    const view = new DataView(file.buffer);
    view.setUint32(0, j(0, 64), true);
    view.setBigUint64(8, 0x200000n, true);
    view.setBigUint64(16, BigInt(file.length), true);
    view.setUint32(32, 2, true);
    view.setUint32(56, 0x05435352, true);
    file.set(this.bytes, 64);
    return file;
  }
}
