// A whole kernel machine whose guest drives its vIOMMU and a device behind it, on every configuration of the engine: the same trace, event by event, and
// the same end.
//
// The guest is a player of what a driver did once: the kind's own guest driver (vmm/viommu/KIND/guest) brings the vIOMMU up on a machine of the same
// making, sets a device up, lets it transfer, changes mappings, invalidates, takes faults; its loads and stores are the player's list. Loads wait for the
// value that was seen then, so the machine's time may be another.
import { createHash } from "node:crypto";
import { beforeAll, describe, expect, it } from "vitest";
import { Clock } from "../../host/base/clock.ts";
import type { AccessSize } from "../../host/base/mmio.ts";
import { restoreTree, saveTree } from "../../host/base/state.ts";
import { Trace } from "../../host/base/trace.ts";
import { traceLine } from "../../host/base/trace-json.ts";
import { builtInHosts } from "../../host/built-in-hosts.ts";
import * as EDU from "../../host/devices/edu/registers.ts";
import { Host } from "../../host/host.ts";
import { Arm64Machine } from "../../vmm/arm64-machine.ts";
import { CountingCalls } from "../../vmm/counting-calls.ts";
import type { KernelMachine, KernelMachineOptions } from "../../vmm/kernel-machine.ts";
import {
  ECAM_BASE,
  GICC_BASE,
  GICD_BASE,
  GICV2M_BASE,
  MSI_BASE,
  PCI_MEMORY32_BASE,
  RAM_BASE,
  SW_MSI_BASE,
  SW_MSI_SIZE,
  UART_BASE,
} from "../../vmm/memory-map.ts";
import { Rv64Machine } from "../../vmm/rv64-machine.ts";
import { GuestRam } from "../../vmm/scenario/guest-memory.ts";
import type { EngineCore, EngineExports } from "../../vmm/vcpu/engine/core.ts";
import type { VcpuPort } from "../../vmm/vcpu/port.ts";
import type { GuestSide } from "../../vmm/viommu/guest-driver.ts";
import { kindOfArchitecture, VIOMMU_KINDS, type ViommuKindName } from "../../vmm/viommu/kinds.ts";
import { Program } from "./rv64-program.ts";
import { coreModule as a64Module } from "./vcpu/aarch64/core-module.ts";
import { CONFIGURATIONS, type Configuration, INTERPRETED } from "./vcpu/engine/configurations.ts";
import { Debugger } from "./vcpu/engine/debugger.ts";
import { coreModule as rv64Module } from "./vcpu/riscv64/core-module.ts";
import * as rv from "./vcpu/riscv64/encode.ts";
import { generator } from "./vcpu/riscv64/reference/integer.ts";

const MEMORY = 8 * 2 ** 20;
const ROUTING_ID = 0x10;
const IOVA = 0x12_3000n;
const LIST = RAM_BASE + 0x10_0000;
/** What the driver allocates lies from here on. */
const PAGES = RAM_BASE + 0x30_0000;

/** Steps of the player, 16 bytes each and 8 of none: kind, address, value. */
interface Step {
  readonly kind: "end" | "store" | "load" | "spin" | "sleep";
  readonly address: number;
  readonly size: AccessSize;
  readonly value: bigint;
}
const STEP_BYTES = 32;
const SIZES = [1, 2, 4, 8] as const;
/** Where the player goes for a step: a table of pieces of code, PIECE_BYTES each. */
const KINDS = ["end", "store1", "store2", "store4", "store8", "load1", "load2", "load4", "load8", "spin", "sleep"];
const PIECE_BYTES = 64;
/** How often a load looks for what was seen then. */
const PATIENCE = 300;
/** A round of a spin is a few instructions: enough of them in all that code is hot as machines have it. */
const SPIN = 40_000n;
const SLEEP_TICKS = 2_000n;

interface InstructionSet {
  readonly player: readonly number[];
  machine(options: KernelMachineOptions): KernelMachine;
  readonly messageAddress: number;
  /** Stores that let a timer wake the CPU. */
  readonly prepare: readonly (readonly [address: number, value: number])[];
}

/** x8 the list, x9 a sum of what was loaded, x10 kind, x11 address, x12 value, x13 the pieces, x14 and x15 scratch. */
function rv64Player(): number[] {
  const { addi, b, i, j, jalr, ld, load, r } = rv;
  const pieces: Readonly<Record<string, readonly number[]>> = {
    end: new Program().reset().words,
    ...Object.fromEntries(SIZES.map((size, n) => [`store${size}`, [rv.store(n, 11, 12, 0)]])),
    ...Object.fromEntries(
      SIZES.map((size, n) => [
        `load${size}`,
        [
          addi(14, 0, PATIENCE),
          load(n === 3 ? 3 : n + 4, 15, 11, 0),
          b(0, 15, 12, 12),
          addi(14, 14, -1),
          b(1, 14, 0, -12),
          i(0x13, 1, 10, 9, 5),
          r(0x33, 0, 0x20, 9, 10, 9),
          r(0x33, 0, 0, 9, 9, 15),
        ],
      ]),
    ),
    spin: [
      i(0x13, 1, 10, 9, 5),
      r(0x33, 0, 0x20, 9, 10, 9),
      r(0x33, 4, 0, 9, 9, 12),
      addi(12, 12, -1),
      b(1, 12, 0, -16),
    ],
    // stimecmp = time + value
    sleep: [rv.csr(2, 10, 0xc01, 0), r(0x33, 0, 0, 10, 10, 12), rv.csr(1, 0, 0x14d, 10), rv.WFI],
  };
  const program = new Program().li(8, LIST).csrWrite(0x104, 1 << 5);
  const at = program.words.length;
  // auipc: the pieces begin at the next multiple of PIECE_BYTES
  const start = Math.ceil(((at + 10) * 4) / PIECE_BYTES) * PIECE_BYTES;
  program.emit(rv.u(0x17, 13, 0), addi(13, 13, start - at * 4));
  const loop = program.here;
  program.emit(ld(10, 8, 0), ld(11, 8, 8), ld(12, 8, 16), addi(8, 8, STEP_BYTES));
  program.emit(i(0x13, 1, 10, 10, 6), r(0x33, 0, 0, 10, 10, 13), jalr(0, 10, 0));
  const words = [...program.words];
  KINDS.forEach((kind, n) => {
    const first = (start + n * PIECE_BYTES) / 4;
    while (words.length < first) words.push(rv.NOP);
    words.push(...pieces[kind]!);
    words.push(j(0, loop - words.length * 4));
    if (words.length * 4 > start + (n + 1) * PIECE_BYTES && kind !== "end") throw new Error(`${kind} is too long`);
  });
  return words;
}

/** The same with x19 for the list; Xn otherwise. */
function a64Player(): number[] {
  const movz = (d: number, value: number, half = 0): number => (0xd2800000 | (half << 21) | (value << 5) | d) >>> 0;
  const movk = (d: number, value: number, half: number): number => (0xf2800000 | (half << 21) | (value << 5) | d) >>> 0;
  const ldr = (t: number, n: number, offset: number): number =>
    (0xf9400000 | ((offset / 8) << 10) | (n << 5) | t) >>> 0;
  const branch = (distance: number): number => (0x14000000 | ((distance / 4) & 0x3ffffff)) >>> 0;
  const sum = [0xd37be92a, 0xcb090149]; // lsl x10, x9, #5; sub x9, x10, x9
  const pieces: Readonly<Record<string, readonly number[]>> = {
    end: [movz(0, 8), movk(0, 0x8400, 1), 0xd4000002],
    ...Object.fromEntries(SIZES.map((size, n) => [`store${size}`, [(0x39000000 | (n << 30) | (11 << 5) | 12) >>> 0]])),
    ...Object.fromEntries(
      SIZES.map((size, n) => [
        `load${size}`,
        [
          movz(14, PATIENCE),
          (0x39400000 | (n << 30) | (11 << 5) | 15) >>> 0,
          0xeb0c01ff, // cmp x15, x12
          0x54000060, // b.eq .+12
          0xf10005ce, // subs x14, x14, #1
          0x54ffff81, // b.ne .-16
          ...sum,
          0x8b0f0129, // add x9, x9, x15
        ],
      ]),
    ),
    spin: [...sum, 0xca0c0129, 0xf100058c, 0x54ffff81], // eor x9, x9, x12; subs x12, x12, #1; b.ne .-16
    // cntv_cval_el0 = cntvct_el0 + value
    sleep: [0xd53be04a, 0x8b0c014a, 0xd51be34a, 0xd503207f],
  };
  const words = [movz(19, LIST & 0xffff), movk(19, LIST >>> 16, 1), movz(10, 1), 0xd51be32a]; // msr cntv_ctl_el0, x10
  const start = Math.ceil(((words.length + 10) * 4) / PIECE_BYTES) * PIECE_BYTES;
  words.push((0x10000000 | (((start - words.length * 4) / 4) << 5) | 13) >>> 0); // adr x13, pieces
  const loop = words.length * 4;
  words.push(ldr(10, 19, 0), ldr(11, 19, 8), ldr(12, 19, 16), (0x91000000 | (STEP_BYTES << 10) | (19 << 5) | 19) >>> 0);
  words.push(0x8b0a19aa, 0xd61f0140); // add x10, x13, x10, lsl #6; br x10
  KINDS.forEach((kind, n) => {
    const first = (start + n * PIECE_BYTES) / 4;
    while (words.length < first) words.push(0xd503201f);
    words.push(...pieces[kind]!);
    words.push(branch(loop - words.length * 4));
    if (words.length * 4 > start + (n + 1) * PIECE_BYTES) throw new Error(`${kind} is too long`);
  });
  return words;
}

const SETS: Readonly<Record<"riscv64" | "arm64", InstructionSet>> = {
  riscv64: {
    player: rv64Player(),
    machine: ({ cpus, ...options }) => new Rv64Machine({ ...options, core: rv64Module(), harts: cpus }),
    messageAddress: MSI_BASE,
    prepare: [],
  },
  arm64: {
    player: a64Player(),
    machine: (options) => new Arm64Machine({ ...options, core: a64Module() }),
    messageAddress: GICV2M_BASE + 0x40,
    prepare: [
      [GICD_BASE, 1],
      [GICD_BASE + 0x100, 2 ** 27], // ISENABLER0
      [GICC_BASE, 1],
      [GICC_BASE + 4, 0xff], // PMR
    ],
  },
};

/** A machine over a host, with a device behind its vIOMMU, listened to. */
class World {
  readonly clock = new Clock();
  readonly trace = new Trace(this.clock);
  readonly lines: string[] = [];
  readonly machine: KernelMachine;
  readonly viommuBase: number;
  readonly core: EngineCore<EngineExports>;
  readonly guest: GuestSide;
  output = "";

  constructor(set: InstructionSet, kindName: ViommuKindName, engine: NonNullable<KernelMachineOptions["engine"]>) {
    const { clock, trace } = this;
    clock.trace = trace;
    trace.addSink({ event: (event) => void this.lines.push(traceLine(event)) });
    const kind = VIOMMU_KINDS[kindName];
    this.guest = kind.guest;
    const host = new Host(builtInHosts.find(({ name }) => name === kind.guest.host)!, { clock, trace });
    this.machine = set.machine({ clock, trace, memoryBytes: MEMORY, cpus: 1, engine });
    this.core = this.machine.parts.core as unknown as EngineCore<EngineExports>;
    this.machine.machine.onConsole = (bytes) => {
      this.output += new TextDecoder().decode(bytes);
    };
    const calls = new CountingCalls(host.createProcess());
    const assignment = this.machine.iommuWorld({ kind, configuration: {}, calls, report: () => {} });
    const refusal = assignment.assign({ ...host.assignable("0000:00:01.0"), routingId: ROUTING_ID });
    if (typeof refusal === "string") throw new Error(refusal);
    this.viommuBase = assignment.viommus[0]!.base;
  }
}

/** What a driver does, as steps. */
function record(set: InstructionSet, kindName: ViommuKindName): Step[] {
  const world = new World(set, kindName, { translate: false });
  const { machine } = world.machine;
  const steps: Step[] = [];
  const port: VcpuPort = {
    get high() {
      return machine.high;
    },
    get stopping() {
      return machine.stopping;
    },
    load: (address, size) => {
      const low = machine.load(address, size);
      const value = BigInt(low >>> 0) | (size === 8 ? BigInt(machine.high >>> 0) << 32n : 0n);
      const last = steps[steps.length - 1];
      // a driver that waits looks again: the player waits for the last it saw
      if (last?.kind === "load" && last.address === address) steps.pop();
      steps.push({ kind: "load", address, size, value });
      return low;
    },
    store: (address, size, low, high) => {
      const value = BigInt(low >>> 0) | (size === 8 ? BigInt(high >>> 0) << 32n : 0n);
      steps.push({ kind: "store", address, size, value });
      machine.store(address, size, low, high);
    },
    wait: () => machine.wait(),
    poll: () => machine.poll(),
    console: (bytes) => machine.console(bytes),
  };
  class RecordedRam extends GuestRam {
    override write64(address: bigint, value: bigint): void {
      steps.push({ kind: "store", address: Number(address), size: 8, value: BigInt.asUintN(64, value) });
      super.write64(address, value);
    }
  }
  const ram = new RecordedRam(world.machine.memory, BigInt(PAGES), BigInt(RAM_BASE + MEMORY - PAGES));
  const config = ECAM_BASE + ROUTING_ID * 4096;
  const bar = PCI_MEMORY32_BASE;
  for (const [address, value] of set.prepare) port.store(address, 4, value, 0);
  port.store(config + 0x10, 4, bar, 0);
  port.store(config + 4, 2, 6, 0);
  const driver = world.guest.driver({
    ...{ port, ram, base: world.viommuBase },
    ...{ messageAddress: set.messageAddress, firstMessage: 64 },
  });
  const stage1 = world.guest.stage1(ram, 5);
  stage1.map(BigInt(SW_MSI_BASE), BigInt(SW_MSI_BASE), BigInt(SW_MSI_SIZE));
  const frames = [ram.allocate(), ram.allocate(), ram.allocate()];
  const say = (text: string): void => {
    for (const character of text) port.store(UART_BASE, 1, character.charCodeAt(0), 0);
  };
  const transfer = (toRam: boolean, length: number): void => {
    const [source, destination] = toRam ? [BigInt(EDU.BUFFER), IOVA] : [IOVA, BigInt(EDU.BUFFER)];
    const wide = (at: number, value: bigint): void =>
      port.store(bar + at, 8, Number(value & 0xffff_ffffn), Number(value >> 32n));
    wide(EDU.DMA_SOURCE, source);
    wide(EDU.DMA_DESTINATION, destination);
    wide(EDU.DMA_COUNT, BigInt(length));
    wide(EDU.DMA_COMMAND, BigInt(EDU.COMMAND_RUN | (toRam ? EDU.COMMAND_TO_RAM : 0)));
    while ((port.load(bar + EDU.DMA_COMMAND, 4) & EDU.COMMAND_RUN) !== 0);
    port.load(bar + EDU.DMA_MOVED, 4);
    port.load(bar + EDU.DMA_OUTCOME, 4);
  };
  const translation = { whole: stage1, pasids: new Map(), ats: false, pageRequests: false };
  driver.installTranslation(ROUTING_ID, translation);
  say("up\n");
  for (let round = 0; round < 9; round++) {
    const frame = frames[round % 3]!;
    stage1.map(IOVA, frame, 4096n);
    if (round % 3 !== 1) driver.invalidate({ stage1, iova: IOVA });
    driver.fence();
    ram.write64(frame, 0x1111n * BigInt(round + 1));
    transfer(false, 256);
    transfer(true, 64 * (1 + round));
    stage1.unmap(IOVA, 4096n);
    driver.invalidate(round % 2 === 0 ? { stage1 } : {});
    driver.fence();
    transfer(round % 2 === 0, 64);
    driver.takeFaults();
    steps.push({ kind: "spin", address: 0, size: 8, value: SPIN });
    steps.push({ kind: "sleep", address: 0, size: 8, value: SLEEP_TICKS });
    if (round === 5) driver.installTranslation(ROUTING_ID, { ...translation, whole: "bypass" });
    if (round === 6) driver.installTranslation(ROUTING_ID, translation);
    say(`${round}`);
  }
  steps.push({ kind: "end", address: 0, size: 8, value: 0n });
  return steps;
}

/** Cuts last this long: what is left behind them is the same at any speed. */
const CUT_INSTRUCTIONS = 40_000;

/** Plays them on a machine of the configuration; all that there is to see. */
function play(set: InstructionSet, kindName: ViommuKindName, steps: readonly Step[], configuration: Configuration) {
  const { translate, decodePages, cut, debugged, moved } = configuration;
  const world = new World(set, kindName, { translate, ...(decodePages === undefined ? {} : { decodePages }) });
  const { machine, core } = world;
  const bytes = new Uint8Array(Uint32Array.from(set.player).buffer);
  machine.load({
    kernel: {
      ...{ architecture: "riscv64", format: "Image", relocatable: true, entry: 0 },
      segments: [{ address: 0, bytes, memoryBytes: bytes.length }],
    },
    ...{ initrd: null, bootArguments: "", viommus: [], seed: new Uint8Array(32) },
  });
  const ram = new DataView(core.memory.buffer, core.ramOffset, core.ramBytes);
  steps.forEach(({ kind, address, size, value }, n) => {
    const at = LIST - RAM_BASE + n * STEP_BYTES;
    const name = kind === "store" || kind === "load" ? `${kind}${size}` : kind;
    ram.setBigUint64(at, BigInt(KINDS.indexOf(name)), true);
    ram.setBigUint64(at + 8, BigInt(address), true);
    ram.setBigUint64(at + 16, value, true);
  });
  const debug = debugged === true ? new Debugger(generator(7)) : null;
  const told = { translations: 0, moves: 0, stops: 0 };
  const pieces = cut !== undefined || debug !== null || moved !== undefined;
  for (let runs = 0; ; runs++) {
    if (runs > 1_000_000) throw new Error(`the guest does not end: ${world.output}`);
    if (debug !== null && runs % 8 === 0) debug.set(core, 0);
    if (moved !== undefined && runs % moved === 1) {
      const saved = saveTree(core);
      for (let at = core.ramOffset - 1; at >= 0x200000; at -= 4093) new Uint8Array(core.memory.buffer)[at] = 0x5a;
      restoreTree(core, saved);
      told.moves++;
    }
    const whole = cut === undefined || core.executed > CUT_INSTRUCTIONS;
    const stop = machine.run(pieces ? (whole ? 9_000 : cut) : Number.POSITIVE_INFINITY);
    if (debug !== null && stop.kind === "held" && core.unused > 0) told.stops++;
    if (stop.kind === "off") break;
    if (stop.kind === "idle") {
      if (stop.until === Number.POSITIVE_INFINITY) throw new Error(`the guest waits for ever: ${world.output}`);
      machine.skipTo(stop.until);
    }
  }
  told.translations = core.translations;
  return {
    told,
    seen: {
      output: world.output,
      events: world.lines.length,
      trace: createHash("sha256").update(world.lines.join("\n")).digest("hex"),
      ram: createHash("sha256").update(core.ram).digest("hex"),
      now: world.clock.now,
      executed: core.executed,
      pc: core.programCounter(0),
      commands: machine.commandsExecuted(),
    },
    lines: world.lines,
  };
}

describe.each((["riscv64", "arm64"] as const).map((name) => [name, kindOfArchitecture(name)] as const))(
  "a guest on %s that drives an IOMMU of kind %s",
  (setName, kindName) => {
    const set = SETS[setName];
    let steps: readonly Step[];
    let interpreted: ReturnType<typeof play>;
    beforeAll(() => {
      steps = record(set, kindName);
      interpreted = play(set, kindName, steps, INTERPRETED);
    });

    it("does on the CPU what its driver did", () => {
      expect(interpreted.seen.output).toBe("up\n012345678");
      const count = (type: string): number =>
        interpreted.lines.filter((line) => line.includes(`"type":"${type}"`)).length;
      expect(count("command")).toBeGreaterThan(40);
      expect(count("dma")).toBeGreaterThan(60);
      expect(count("fault")).toBeGreaterThan(8);
      expect(count("mmio")).toBeGreaterThan(300);
    });

    it.each(CONFIGURATIONS.filter(({ vectors }) => vectors !== false))("has the same trace: $name", (configuration) => {
      const { told, seen, lines } = play(set, kindName, steps, configuration);
      const differs = lines.findIndex((line, n) => line !== interpreted.lines[n]);
      expect(lines[differs]).toBe(interpreted.lines[differs]);
      expect(seen).toEqual(interpreted.seen);
      const { translate, debugged, moved } = configuration;
      if (translate === false) expect(told.translations).toBe(0);
      else if (translate === true || translate.samples < 3)
        expect(told.translations > 0).toBe(translate === true || translate.samples > 0);
      expect(told.moves > 0).toBe(moved !== undefined);
      expect(told.stops > 0).toBe(debugged === true);
    });
  },
);
