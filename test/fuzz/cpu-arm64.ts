// Random instruction streams on the AArch64 vCPU: whatever the guest executes, the VMM sees no exception, no overrun of a budget and no store outside
// guest RAM, and the same stream ends in the same state twice, however the engine is told to run it. Exceptions are the guest's own affair. Every other round is
// a program that keeps the rules instead (../vmm/vcpu/engine/fencing-program.ts): it comes further.
//
// Streams are a mixture: uniformly random words; valid encodings with random fields; system registers, page tables, TTBRs and registers of random
// bits; two CPUs that share it all. The memory before and behind guest RAM is guarded by a pattern where the core keeps nothing.
import type { Fuzzer } from "../../vmm/cli/fuzzer.ts";
import { AArch64Core, Exit } from "../../vmm/vcpu/aarch64/core.ts";
import { coreModule } from "../vmm/vcpu/aarch64/core-module.ts";
import { a64Guest } from "../vmm/vcpu/aarch64/fencing-guest.ts";
import { randomInstruction } from "../vmm/vcpu/aarch64/random-instructions.ts";
import { randomVector, randomVectorInstruction } from "../vmm/vcpu/aarch64/random-vector-instructions.ts";
import type { Configuration } from "../vmm/vcpu/engine/configurations.ts";
import { ConfiguredCore, type EngineOptions } from "../vmm/vcpu/engine/configured-core.ts";
import { cpuRounds } from "../vmm/vcpu/engine/fuzz-rounds.ts";
import { RandomDevice } from "../vmm/vcpu/engine/random-device.ts";
import { generator } from "../vmm/vcpu/riscv64/reference/integer.ts";

const RAM = 0x8000_0000n;
/** Not whole WebAssembly pages: what is left behind it is guarded, too. */
const RAM_BYTES = 248 * 1024;
/** SCTLR, TCR, TTBR0, TTBR1, MAIR, VBAR, ELR, SPSR, SP_EL0, CPACR, CNTKCTL, TPIDR, CNTV_CTL, CNTV_CVAL, CNTV_TVAL, NZCV, DAIF, FPCR, FPSR, CurrentEL, ESR, FAR, PAR, CNTVCT. */
const REGISTERS = [
  0x181000, 0x182040, 0x182000, 0x182020, 0x18a200, 0x18c000, 0x184020, 0x184000, 0x184100, 0x181040, 0x18e100,
  0x18d080, 0x1be320, 0x1be340, 0x1be300, 0x1b4200, 0x1b4220, 0x1b4400, 0x1b4420, 0x184240, 0x185200, 0x186000,
  0x187400, 0x1be040,
];
/** SVC, HVC, SMC, BRK, ERET, WFE, WFI, ISB, CLREX, DAIFSet, DAIFClr, SPSel, TLBI, IC, DC, AT. */
const SYSTEM = [
  0xd4000001, 0xd4000002, 0xd4000003, 0xd4200000, 0xd69f03e0, 0xd503205f, 0xd503207f, 0xd5033fdf, 0xd5033f5f,
  0xd50342df, 0xd50342ff, 0xd50040bf, 0xd50041bf, 0xd508871f, 0xd5088720, 0xd5088320, 0xd5088340, 0xd508751f,
  0xd50b7521, 0xd50b7a21, 0xd50b7421, 0xd5087801, 0xd5087841,
];

const guardsOf = (core: AArch64Core): readonly Uint8Array[] => [
  new Uint8Array(core.memory.buffer, 0x800, 0x800),
  new Uint8Array(core.memory.buffer, core.ramOffset + RAM_BYTES),
];

/** One stream: builds a machine from `seed`, runs it, returns a digest of its end state. Throws what the VMM must never throw. */
export function stream(module: WebAssembly.Module, seed: number, configuration: Configuration): string {
  const next = generator(seed);
  const mmio = new RandomDevice<AArch64Core>(generator(seed ^ 0x5bd1e995), (core, value) =>
    core.setInterrupt(value % core.harts, (value & 4) !== 0, (value & 8) !== 0),
  );
  const harts = 1 + (next() % 2);
  // a stream fences at random: with fewer pages it would meet what it has changed earlier
  const decodePages = 8 + (next() % 60);
  const make = ({ translate = true }: EngineOptions): AArch64Core => {
    const core = new AArch64Core({ module, ramBytes: RAM_BYTES, mmio, harts, decodePages, translate });
    for (const guard of guardsOf(core)) guard.fill(0xa5);
    return core;
  };
  const runner = new ConfiguredCore(make, configuration, generator(seed ^ 0x2545f491));
  mmio.runner = runner;
  const first = runner.core;
  const ram = new DataView(first.memory.buffer, first.ramOffset, RAM_BYTES);
  for (let at = 0; at < RAM_BYTES; at += 4) ram.setUint32(at, instruction(next), true);
  // a root table, and next-level tables, of random descriptors that mostly point into RAM
  for (let at = RAM_BYTES - 0x8000; at < RAM_BYTES; at += 8) {
    const frame = RAM + BigInt(next() % (RAM_BYTES / 4096)) * 4096n;
    const low = next() % 3 === 0 ? 3n : BigInt(next() & 0xfff) | 0x401n;
    const high = next() % 8 === 0 ? BigInt(next() & 0xfff0) << 48n : 0n;
    const odd = next() % 32 === 0 ? BigInt(next() & 0xffff) << 32n : 0n;
    ram.setBigUint64(at, BigInt.asUintN(64, frame | low | high | odd), true);
  }
  for (let cpu = 0; cpu < harts; cpu++) prepare(first, cpu, next);
  for (let slice = 0; slice < 60; slice++) {
    const cpu = slice % harts;
    const budget = 1 + (next() % 2000);
    const reason = runner.run(cpu, budget);
    const { core } = runner;
    if (reason === Exit.Call) core.setX(cpu, 0, BigInt(next()));
    if (reason === Exit.Wfi) core.now += next() % 10_000;
    // a guest that lost its way gets a new start somewhere in RAM
    if (next() % 4 === 0) {
      core.write(cpu, "pc", RAM + BigInt((next() % RAM_BYTES) & ~3));
      if (next() % 2 === 0) {
        core.write(cpu, "sctlr_el1", 0x30d0_0800n);
        core.flushTranslations(cpu);
      }
      for (let n = 0; n < 31; n++) if (next() % 2 === 0) core.setX(cpu, n, RAM + BigInt(next() % RAM_BYTES));
    }
  }
  const { core } = runner;
  if (guardsOf(core).some((guard) => guard.length === 0 || guard.some((byte) => byte !== 0xa5)))
    throw new Error("the core stored where it keeps nothing");
  return `${mmio.sum} ${digest(core, harts)}`;
}

function instruction(next: () => number): number {
  const draw = (bound: number): number => next() % bound;
  const word = next();
  switch (draw(10)) {
    case 0:
      return word;
    case 1:
      return (0xd5000000 | ((word & 1) << 21) | REGISTERS[draw(REGISTERS.length)]! | draw(32)) >>> 0;
    case 2:
      return draw(4) === 0 ? (SYSTEM[draw(SYSTEM.length)]! | (draw(8) === 0 ? draw(32) : 0)) >>> 0 : word & 0x1fffffff;
    case 3:
      return (0x08000000 | (word & 0xc0df8000) | (draw(32) << 16) | (31 << 10) | (draw(32) << 5) | draw(32)) >>> 0; // exclusives
    case 4:
    case 5:
      return randomVectorInstruction(draw) >>> 0;
    default:
      return randomInstruction(draw);
  }
}

function prepare(core: AArch64Core, cpu: number, next: () => number): void {
  const within = (): bigint => RAM + BigInt(next() % RAM_BYTES);
  core.start(cpu, RAM + BigInt((next() % RAM_BYTES) & ~3), 0n);
  for (let n = 0; n < 31; n++) {
    const kind = next() % 4;
    const wide = (BigInt(next()) << 32n) | BigInt(next());
    core.setX(cpu, n, kind === 0 ? wide : kind === 1 ? 0x1000_0000n + BigInt(next() % 4096) : within());
  }
  for (let n = 0; n < 32; n++)
    core.setV(
      cpu,
      n,
      randomVector((bound) => next() % bound),
    );
  core.write(cpu, "sp", within());
  core.write(cpu, "vbar_el1", within() & ~0x7ffn);
  core.write(cpu, "elr_el1", within() & ~3n);
  core.write(cpu, "spsr_el1", BigInt(next()) & 0xf00003c5n);
  core.write(cpu, "cpacr_el1", next() % 4 === 0 ? 0n : 3n << 20n);
  core.write(cpu, "daif", BigInt(next() % 16));
  core.write(cpu, "cntv_ctl_el0", BigInt(next() % 4));
  core.write(cpu, "cntv_cval_el0", BigInt(next() % 1000));
  core.write(cpu, "cntkctl_el1", BigInt(next() & 0x3ff));
  if (next() % 3 === 0) {
    core.write(cpu, "el", 0n);
    core.write(cpu, "spsel", 0n);
  }
  core.setInterrupt(cpu, next() % 8 === 0, next() % 2 === 0);
  if (next() % 2 === 0) {
    const root = RAM + BigInt(RAM_BYTES / 4096 - 1 - (next() % 8)) * 4096n;
    core.write(cpu, "ttbr0_el1", root);
    core.write(cpu, "ttbr1_el1", root);
    const size = BigInt(16 + (next() % 24));
    core.write(cpu, "tcr_el1", size | (size << 16n) | (2n << 30n) | (2n << 32n) | (BigInt(next() & 3) << 37n));
    core.write(cpu, "sctlr_el1", 0x30d0_0801n | (next() % 4 === 0 ? 1n << 19n : 0n));
    core.flushTranslations(cpu);
  }
}

const DIGESTED = [
  "pc",
  "sp",
  "sp_el0",
  "sp_el1",
  "elr_el1",
  "spsr_el1",
  "esr_el1",
  "far_el1",
  "ttbr0_el1",
  "sctlr_el1",
  "nzcv",
  "daif",
  "el",
  "spsel",
  "fpcr",
  "par_el1",
  "cntv_ctl_el0",
  "cntv_cval_el0",
  "instret",
] as const;

function digest(core: AArch64Core, harts: number): string {
  let sum = 0;
  const words = new Uint32Array(core.memory.buffer, core.ramOffset, RAM_BYTES / 4);
  for (const word of words) sum = (Math.imul(sum, 31) + word) | 0;
  const parts: (string | number | bigint)[] = [sum, core.now, core.executed];
  for (let cpu = 0; cpu < harts; cpu++) {
    for (let n = 0; n < 31; n++) parts.push(core.x(cpu, n));
    for (let n = 0; n < 32; n++) parts.push(core.v(cpu, n));
    for (const name of DIGESTED) parts.push(core.read(cpu, name));
  }
  return parts.join(" ");
}

export const fuzzer: Fuzzer = {
  about: "random instruction streams and programs: AArch64 vCPU, interpreted and as the engine can be told to run them",
  round: cpuRounds((seed, configuration) => stream(coreModule(), seed, configuration), a64Guest),
};
