// Random instruction streams on the RV64 vCPU: whatever the guest executes, the VMM sees no exception, no overrun of a budget and no store outside
// guest RAM, and the same stream ends in the same state twice, however the engine is told to run it. Traps are the guest's own affair. Every other round is
// a program that keeps the rules instead (../vmm/vcpu/engine/fencing-program.ts): it comes further.
//
// Streams are a mixture: uniformly random words; valid encodings with random fields; page tables, satp, stvec and registers of random bits. The
// memory before and behind guest RAM is guarded by a pattern where the core keeps nothing.
import type { Fuzzer } from "../../vmm/cli/fuzzer.ts";
import { Exit, Rv64Core } from "../../vmm/vcpu/riscv64/core.ts";
import type { Configuration } from "../vmm/vcpu/engine/configurations.ts";
import { ConfiguredCore, type EngineOptions } from "../vmm/vcpu/engine/configured-core.ts";
import { cpuRounds } from "../vmm/vcpu/engine/fuzz-rounds.ts";
import { RandomDevice } from "../vmm/vcpu/engine/random-device.ts";
import { coreModule } from "../vmm/vcpu/riscv64/core-module.ts";
import { rv64Guest } from "../vmm/vcpu/riscv64/fencing-guest.ts";
import { generator } from "../vmm/vcpu/riscv64/reference/integer.ts";

const RAM = 0x8000_0000n;
/** Not whole WebAssembly pages: what is left behind it is guarded, too. */
const RAM_BYTES = 248 * 1024;
const OPCODES = [
  0x03, 0x07, 0x0f, 0x13, 0x17, 0x1b, 0x23, 0x27, 0x2f, 0x33, 0x37, 0x3b, 0x43, 0x47, 0x4b, 0x4f, 0x53, 0x63, 0x67,
  0x6f, 0x73,
];
const CSRS = [
  0x001, 0x002, 0x003, 0x100, 0x104, 0x105, 0x106, 0x10a, 0x140, 0x141, 0x142, 0x143, 0x144, 0x14d, 0x150, 0x151, 0x15c,
  0x180, 0xc01, 0xdb0,
];
const SYSTEM = [
  0x73, 0x100073, 0x10200073, 0x10500073, 0x12000073, 0x1420f073, 0x100f, 0x0042a00f, 0x00d00073, 0x01d00073,
];
/** Encodings that random fields hardly ever meet: the fixed bits, and the mask of those that are random. */
const RARE: readonly (readonly [fixed: number, random: number])[] = [
  [0x0a001033, 0x01ff8f80], // clmul
  [0x0a002033, 0x01ff8f80], // clmulr
  [0x0a003033, 0x01ff8f80], // clmulh
  [0x0e005033, 0x01ff8f80], // czero.eqz
  [0x0e007033, 0x01ff8f80], // czero.nez
  [0x81c04073, 0x4c3f8f80], // mop.r.n
  [0x82004073, 0x4dff8f80], // mop.rr.n
  [0x44000053, 0x001fff80], // fcvt.h.s, fcvt.h.d
  [0x40200053, 0x020fff80], // fcvt.s.h, fcvt.d.h
  [0xe4000053, 0x000f8f80], // fmv.x.h
  [0xf4000053, 0x000f8f80], // fmv.h.x
  [0x00001007, 0xffff8f80], // flh
  [0x00001027, 0xffff8f80], // fsh
  [0x80008000, 0x1ffc1ffc], // two of Zcb's loads and stores
  [0x9c419c41, 0x03bc03bc], // two of c.mul and Zcb's operations on one register
  [0x60816081, 0x0f000f00], // two c.mop.n
];

const guardsOf = (core: Rv64Core): readonly Uint8Array[] => [
  new Uint8Array(core.memory.buffer, 0x800, 0x800),
  new Uint8Array(core.memory.buffer, core.ramOffset + RAM_BYTES),
];

/** One stream: builds a machine from `seed`, runs it, returns a digest of its end state. Throws what the VMM must never throw. */
export function stream(module: WebAssembly.Module, seed: number, configuration: Configuration): string {
  const next = generator(seed);
  const mmio = new RandomDevice<Rv64Core>(generator(seed ^ 0x5bd1e995), (core, value) =>
    core.raiseIdentity(value % 3, (value >>> 2) % 300),
  );
  const harts = 1 + (next() % 2);
  // a stream fences at random: with fewer pages it would meet what it has changed earlier
  const decodePages = 8 + (next() % 60);
  const make = ({ translate = true }: EngineOptions): Rv64Core => {
    const core = new Rv64Core({ module, ramBytes: RAM_BYTES, mmio, harts, decodePages, translate });
    for (const guard of guardsOf(core)) guard.fill(0xa5);
    return core;
  };
  const runner = new ConfiguredCore(make, configuration, generator(seed ^ 0x2545f491));
  mmio.runner = runner;
  const first = runner.core;
  const ram = new DataView(first.memory.buffer, first.ramOffset, RAM_BYTES);
  for (let at = 0; at < RAM_BYTES; at += 4) ram.setUint32(at, instruction(next), true);
  // a root table, and next-level tables, of random entries that mostly point into RAM
  for (let at = RAM_BYTES - 0x8000; at < RAM_BYTES; at += 8) {
    const frame = (RAM >> 12n) + BigInt(next() % (RAM_BYTES / 4096));
    const flags = next() % 4 === 0 ? 1n : BigInt(next() & 0xff) | 1n;
    const odd = next() % 32 === 0 ? BigInt(next()) << 32n : 0n;
    ram.setBigUint64(at, BigInt.asUintN(64, (frame << 10n) | flags | odd), true);
  }
  for (let hart = 0; hart < harts; hart++) prepare(first, hart, next);
  const random64 = (): bigint => (BigInt(next()) << 32n) | BigInt(next());
  for (let slice = 0; slice < 60; slice++) {
    const hart = slice % harts;
    const budget = 1 + (next() % 2000);
    const reason = runner.run(hart, budget);
    const { core } = runner;
    if (reason === Exit.Call) core.setX(hart, 10, random64());
    if (reason === Exit.Wfi) core.now += next() % 10_000;
    // a guest that lost its way gets a new start somewhere in RAM
    if (next() % 4 === 0) {
      core.write(hart, "pc", RAM + BigInt((next() % RAM_BYTES) & ~1));
      if (next() % 2 === 0) {
        core.write(hart, "satp", 0n);
        core.flushTranslations(hart);
      }
      for (let n = 1; n < 32; n++) if (next() % 2 === 0) core.setX(hart, n, RAM + BigInt(next() % RAM_BYTES));
    }
  }
  const { core } = runner;
  if (guardsOf(core).some((guard) => guard.length === 0 || guard.some((byte) => byte !== 0xa5)))
    throw new Error("the core stored where it keeps nothing");
  return `${mmio.sum} ${digest(core, harts)}`;
}

function instruction(next: () => number): number {
  const word = next();
  switch (next() % 9) {
    case 0:
      return word;
    case 8: {
      const [fixed, random] = RARE[next() % RARE.length]!;
      return (fixed | (word & random)) >>> 0;
    }
    case 1: {
      const csr = CSRS[next() % CSRS.length]!;
      return (
        ((csr << 20) | (word & 0xf8000) | ((1 + (next() % 3) + (next() % 2) * 4) << 12) | (word & 0xf80) | 0x73) >>> 0
      );
    }
    case 2:
      return next() % 4 === 0
        ? SYSTEM[next() % SYSTEM.length]!
        : ((word & 0xfffcfffc) | (word % 3) | ((next() % 3) << 16)) >>> 0;
    default:
      return ((word & 0xffffff80) | OPCODES[next() % OPCODES.length]!) >>> 0;
  }
}

function prepare(core: Rv64Core, hart: number, next: () => number): void {
  const within = (): bigint => RAM + BigInt(next() % RAM_BYTES);
  core.start(hart, RAM + BigInt((next() % RAM_BYTES) & ~1), 0n);
  for (let n = 1; n < 32; n++) {
    const kind = next() % 4;
    const wide = (BigInt(next()) << 32n) | BigInt(next());
    core.setX(hart, n, kind === 0 ? wide : kind === 1 ? 0x1000_0000n + BigInt(next() % 4096) : within());
    core.setF(hart, n, next() % 2 === 0 ? wide : wide | 0xffffffff00000000n);
  }
  core.write(hart, "stvec", within() & ~2n);
  core.write(hart, "sstatus", BigInt(next()) & 0xc6122n);
  core.write(hart, "sie", BigInt(next()) & 0x222n);
  core.write(hart, "mode", BigInt(next() % 2));
  core.write(hart, "stimecmp", BigInt(next() % 1000));
  if (next() % 2 === 0) {
    const root = (RAM >> 12n) + BigInt(RAM_BYTES / 4096 - 1 - (next() % 8));
    core.write(hart, "satp", (BigInt(8 + (next() % 3)) << 60n) | root);
    core.flushTranslations(hart);
  }
}

function digest(core: Rv64Core, harts: number): string {
  let sum = 0;
  const words = new Uint32Array(core.memory.buffer, core.ramOffset, RAM_BYTES / 4);
  for (const word of words) sum = (Math.imul(sum, 31) + word) | 0;
  const parts: (string | number | bigint)[] = [sum, core.now, core.executed];
  for (let hart = 0; hart < harts; hart++) {
    for (let n = 0; n < 32; n++) parts.push(core.x(hart, n), core.f(hart, n));
    for (const name of ["pc", "sstatus", "satp", "scause", "stval", "sepc", "instret", "fflags"] as const) {
      parts.push(core.read(hart, name));
    }
  }
  return parts.join(" ");
}

export const fuzzer: Fuzzer = {
  about: "random instruction streams and programs: RV64 vCPU, interpreted and as the engine can be told to run them",
  round: cpuRounds((seed, configuration) => stream(coreModule(), seed, configuration), rv64Guest),
};
