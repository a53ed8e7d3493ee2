// One CPU, some RAM and a device that records: what the AArch64 tests run on.
import { AArch64Core, type AArch64CoreOptions, type CpuRegister, Exit } from "../../../../vmm/vcpu/aarch64/core.ts";
import { RecordingPort } from "../riscv64/board.ts";
import { coreModule } from "./core-module.ts";

export const RAM = 0x8000_0000n;
export const VECTORS = 0x8000_f000n;
/** b . */
const STAY = 0x14000000;

export interface TakenException {
  /** Offset from VBAR_EL1: 0x200 from EL1h, 0x400 from EL0; + 0x80 for IRQ. */
  readonly vector: number;
  readonly ec: number;
  readonly iss: number;
  readonly elr: bigint;
  readonly far: bigint;
}

export class Board {
  readonly port = new RecordingPort();
  readonly core: AArch64Core;
  readonly ram: DataView;

  constructor(options: Partial<AArch64CoreOptions> = {}) {
    this.core = new AArch64Core({
      module: coreModule(),
      ramBytes: 1 << 20,
      mmio: this.port,
      decodePages: 64,
      ...options,
    });
    this.ram = new DataView(this.core.memory.buffer, this.core.ramOffset, this.core.ramBytes);
    this.reset();
  }

  /** As PSCI starts a CPU, with vectors that stay where they are entered. */
  reset(): void {
    this.core.start(0, RAM, 0n);
    for (let vector = 0; vector < 0x800; vector += 0x80) this.ram.setUint32(Number(VECTORS - RAM) + vector, STAY, true);
    this.core.write(0, "vbar_el1", VECTORS);
    this.core.fenceInstructions(0);
  }

  place(address: bigint, ...words: number[]): void {
    for (const [i, word] of words.entries()) this.ram.setUint32(Number(address - RAM) + 4 * i, word, true);
    this.core.fenceInstructions(0);
  }

  /** Places `words` at the start of RAM and executes as many instructions from there. */
  execute(...words: number[]): Exit {
    this.place(RAM, ...words);
    this.write("pc", RAM);
    return this.core.run(0, words.length);
  }

  run(budget: number): Exit {
    return this.core.run(0, budget);
  }

  x(index: number): bigint {
    return this.core.x(0, index);
  }
  setX(index: number, value: bigint): void {
    this.core.setX(0, index, value);
  }
  read(register: CpuRegister): bigint {
    return this.core.read(0, register);
  }
  write(register: CpuRegister, value: bigint): void {
    this.core.write(0, register, value);
  }

  /** The exception that was taken last; null if pc is at no vector. */
  get exception(): TakenException | null {
    const vector = Number(this.read("pc") - VECTORS);
    if (vector < 0 || vector >= 0x800 || vector % 0x80 !== 0) return null;
    const esr = this.read("esr_el1");
    return {
      vector,
      ec: Number(esr >> 26n),
      iss: Number(esr & 0x1ffffffn),
      elr: this.read("elr_el1"),
      far: this.read("far_el1"),
    };
  }

  load64(address: bigint): bigint {
    return this.ram.getBigUint64(Number(address - RAM), true);
  }
  store64(address: bigint, value: bigint): void {
    this.ram.setBigUint64(Number(address - RAM), BigInt.asUintN(64, value), true);
  }
}

export { Exit };
