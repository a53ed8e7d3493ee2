// One hart, some RAM and a device that records: what the vCPU tests run on.
import {
  Exit,
  type HartMmioPort,
  type HartRegister,
  Rv64Core,
  type Rv64CoreOptions,
} from "../../../../vmm/vcpu/riscv64/core.ts";
import { coreModule } from "./core-module.ts";

export const RAM = 0x8000_0000n;
const TRAP_VECTOR = 0x8000_f000n;

export interface MmioAccess {
  readonly kind: "load" | "store";
  readonly address: number;
  readonly size: number;
  readonly value?: bigint;
}

/** Answers loads with `answer` and remembers every access; `during` runs inside the access. */
export class RecordingPort implements HartMmioPort {
  high = 0;
  answer = 0n;
  readonly log: MmioAccess[] = [];
  during: (access: MmioAccess) => void = () => {};

  load(address: number, size: 1 | 2 | 4 | 8): number {
    const access: MmioAccess = { kind: "load", address, size };
    this.log.push(access);
    this.during(access);
    this.high = Number(BigInt.asUintN(32, this.answer >> 32n));
    return Number(BigInt.asUintN(32, this.answer));
  }

  store(address: number, size: 1 | 2 | 4 | 8, low: number, high: number): void {
    const access: MmioAccess = { kind: "store", address, size, value: (BigInt(high) << 32n) | BigInt(low) };
    this.log.push(access);
    this.during(access);
  }
}

export class Board {
  readonly port = new RecordingPort();
  readonly core: Rv64Core;
  readonly ram: DataView;

  constructor(options: Partial<Rv64CoreOptions> = {}) {
    this.core = new Rv64Core({ module: coreModule(), ramBytes: 1 << 20, mmio: this.port, decodePages: 64, ...options });
    this.ram = new DataView(this.core.memory.buffer, this.core.ramOffset, this.core.ramBytes);
    // j . at the vector and at the entries of a vectored one: a trapped hart stays where it trapped to
    for (let entry = 0; entry < 16; entry++) this.ram.setUint32(Number(TRAP_VECTOR - RAM) + entry * 4, 0x6f, true);
    this.reset();
  }

  /** Registers as after HSM start, stvec at TRAP_VECTOR, FS Initial. */
  reset(): void {
    this.core.start(0, RAM, 0n);
    this.core.write(0, "stvec", TRAP_VECTOR);
    this.core.write(0, "sstatus", 1n << 13n);
  }

  /** Writes instructions: numbers below 0x10000 whose low bits are not 3 as halfwords. Returns the address behind. */
  place(address: bigint, ...words: number[]): bigint {
    let at = Number(address - RAM);
    for (const word of words) {
      if ((word & 3) === 3) {
        this.ram.setUint16(at, word & 0xffff, true);
        this.ram.setUint16(at + 2, word >>> 16, true);
        at += 4;
      } else {
        this.ram.setUint16(at, word, true);
        at += 2;
      }
    }
    this.core.fenceInstructions(0);
    return RAM + BigInt(at);
  }

  /** Places `words` at the start of RAM and executes as many instructions from there. */
  execute(...words: number[]): Exit {
    this.place(RAM, ...words);
    this.pc = RAM;
    return this.core.run(0, words.length);
  }

  run(budget: number): Exit {
    return this.core.run(0, budget);
  }

  get pc(): bigint {
    return this.read("pc");
  }
  set pc(value: bigint) {
    this.write("pc", value);
  }
  x(index: number): bigint {
    return this.core.x(0, index);
  }
  setX(index: number, value: bigint): void {
    this.core.setX(0, index, value);
  }
  f(index: number): bigint {
    return this.core.f(0, index);
  }
  setF(index: number, value: bigint): void {
    this.core.setF(0, index, value);
  }
  read(register: HartRegister): bigint {
    return this.core.read(0, register);
  }
  write(register: HartRegister, value: bigint): void {
    this.core.write(0, register, value);
  }
  /** What the last trap was: cause with bit 63 as a minus sign, stval, sepc; null if pc is not at the trap vector. */
  get trap(): { cause: bigint; value: bigint; pc: bigint } | null {
    if (this.pc !== TRAP_VECTOR) return null;
    return { cause: this.read("scause"), value: this.read("stval"), pc: this.read("sepc") };
  }
  load64(address: bigint): bigint {
    return this.ram.getBigUint64(Number(address - RAM), true);
  }
  store64(address: bigint, value: bigint): void {
    this.ram.setBigUint64(Number(address - RAM), BigInt.asUintN(64, value), true);
  }
}

export { Exit };
