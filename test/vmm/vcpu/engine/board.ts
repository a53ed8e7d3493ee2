// A board for the tiny instruction set: a core, RAM, a device that writes down what it sees, and a handler of exceptions that stays where it is.
import { readFileSync } from "node:fs";
import { Exit, type HartMmioPort } from "../../../../vmm/vcpu/engine/core.ts";
import { buildTiny } from "./tiny/build.mjs";
import * as t from "./tiny/tiny.ts";

export const RAM = 0x8000_0000n;
export const VECTOR = RAM + 0xe000n;
export const DEVICE = 0x1000_0000n;
export const EAGER = { interval: 16, samples: 1 };
export const BOTH = [false, EAGER] as const;

const module = new WebAssembly.Module(readFileSync(await buildTiny()));

class Device implements HartMmioPort {
  high = 0;
  readonly log: string[] = [];
  during = (): void => {};
  load(address: number, size: number): number {
    this.log.push(`load ${address.toString(16)} ${size}`);
    this.during();
    this.high = 0x1234;
    return 0x5678;
  }
  store(address: number, size: number, low: number, high: number): void {
    this.log.push(`store ${address.toString(16)} ${size} ${high.toString(16)} ${low.toString(16)}`);
    this.during();
  }
}

export class Board {
  readonly device = new Device();
  readonly core: t.TinyCore;
  readonly ram: DataView;

  constructor(translate: typeof EAGER | { interval: number; samples: number; capacity?: number } | false, harts = 1) {
    this.core = new t.TinyCore({ module, ramBytes: 1 << 20, mmio: this.device, harts, decodePages: 16, translate });
    this.ram = new DataView(this.core.memory.buffer, this.core.ramOffset, this.core.ramBytes);
    this.place(VECTOR, t.b(0));
    for (let hart = 0; hart < harts; hart++) this.core.write(hart, "vector", VECTOR);
  }

  place(address: bigint, ...words: number[]): void {
    words.forEach((word, n) => {
      this.ram.setUint32(Number(address - RAM) + n * 4, word, true);
    });
    this.core.fenceInstructions(0);
  }

  r(index: number): bigint {
    return this.core.r(0, index);
  }

  set(values: Readonly<Record<number, bigint>>): void {
    for (const [index, value] of Object.entries(values)) this.core.setR(0, Number(index), value);
  }

  /** Runs hart 0 in slices until it waits. */
  finish(slice = 1_000_000, limit = 1_000_000): void {
    while (this.core.executed < limit) {
      if (this.core.run(0, Math.min(slice, limit - this.core.executed)) === Exit.Wfi) return;
    }
    throw new Error("the program did not end");
  }

  /** Cause, address and pc of the exception whose handler hart 0 is in. */
  get exception(): { cause: bigint; far: bigint; pc: bigint } | null {
    const { core } = this;
    if (core.read(0, "pc") !== VECTOR) return null;
    return { cause: core.read(0, "cause"), far: core.read(0, "far"), pc: core.read(0, "elr") };
  }

  /** Everything the guest could see. */
  get state(): string {
    const { core } = this;
    let sum = 0;
    for (const byte of core.ram) sum = (Math.imul(sum, 31) + byte) | 0;
    const registers = Array.from({ length: 16 }, (_, n) => core.r(0, n).toString(16));
    return `${registers} ${core.read(0, "pc")} ${core.now} ${core.executed} ${sum}`;
  }
}
