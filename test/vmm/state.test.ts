// Whole machines, saved as text and taken back in place while they run: what they then do is what they do when nobody saves them, event by
// event, and guest memory ends the same. Between saving and taking back the machine is disturbed, or runs on.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { beforeAll, describe, expect, it } from "vitest";
import { buildFixtures } from "../../guest-fixtures/build.mjs";
import { buildRiscv64NestedDma } from "../../guest-fixtures/riscv64-nested-dma/build.mjs";
import { REG } from "../../host/arch/riscv/registers.ts";
import { Clock } from "../../host/base/clock.ts";
import { SeededRandom } from "../../host/base/seeded-random.ts";
import type { StateRecord } from "../../host/base/state.ts";
import { decodeState, encodeState } from "../../host/base/state-text.ts";
import { Trace } from "../../host/base/trace.ts";
import { traceLine } from "../../host/base/trace-json.ts";
import { builtInHosts, DEFAULT_HOST } from "../../host/built-in-hosts.ts";
import { Edu } from "../../host/devices/edu/edu.ts";
import { Host } from "../../host/host.ts";
import type { Assignment } from "../../vmm/assignment.ts";
import { ComponentMachine } from "../../vmm/component-machine.ts";
import { CountingCalls } from "../../vmm/counting-calls.ts";
import { ECAM_BASE, RAM_BASE, VIOMMU_BASE } from "../../vmm/memory-map.ts";
import { parseKernelImage } from "../../vmm/platform/kernel-image.ts";
import { Rv64Machine } from "../../vmm/rv64-machine.ts";
import { ComponentVcpu } from "../../vmm/vcpu/component/component-vcpu.ts";
import type { PreparedComponent } from "../../vmm/vcpu/component/prepare.ts";
import type { VcpuPort } from "../../vmm/vcpu/port.ts";
import { buildHart } from "../../vmm/vcpu/riscv64/build.mjs";
import { DEFAULT_KIND, VIOMMU_KINDS } from "../../vmm/viommu/kinds.ts";
import { restoreWhole, saveWhole, type WholeMachine } from "../../vmm/whole-machine.ts";
import { soundImage } from "./vcpu/component/scripted-machine.ts";

const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

/** Through text, as a file would be. */
const save = (world: WholeMachine): string => encodeState(saveWhole(world));
const restore = (world: WholeMachine, text: string): void => restoreWhole(world, decodeState(text) as StateRecord);

/** A clock, a trace that is listened to, and a host or none. */
class Ground {
  readonly clock = new Clock();
  readonly trace = new Trace(this.clock);
  readonly lines: string[] = [];
  readonly host: Host | null;
  readonly calls: CountingCalls | null;
  readonly sink = { event: (event: Parameters<typeof traceLine>[0]) => void this.lines.push(traceLine(event)) };

  constructor(hosted: boolean) {
    const { clock, trace } = this;
    clock.trace = trace;
    trace.addSink(this.sink);
    this.host = hosted ? new Host(builtInHosts.find(({ name }) => name === DEFAULT_HOST)!, { clock, trace }) : null;
    this.calls = this.host === null ? null : new CountingCalls(this.host.createProcess());
  }

  /** The devices of the default guest, ids crossed over; or models of the VM's own in their places. */
  devices(assignment: Assignment): void {
    for (const [name, routingId] of [
      ["0000:00:01.0", 0x10],
      ["0000:00:02.0", 0x08],
    ] as const) {
      if (this.host === null) assignment.emulate(routingId, new Edu({ name }), "iommu0");
      else assignment.assign({ ...this.host.assignable(name), routingId });
    }
  }

  /** Calls that can make or end objects of the kernel's: while their number stands, so does the set of objects. */
  get objectCalls(): number {
    const { IOMMU_HWPT_INVALIDATE: _, ...rest } = this.calls?.counts ?? {};
    return Object.values(rest).reduce((sum: number, count) => sum + (count ?? 0), 0);
  }
}

const EDU_BARS = 2;

/** Accesses of a guest gone mad, of those that make no object in the host: device registers, queue heads, MSI tables, RAM, time. */
function disturb(ground: Ground, machine: ComponentMachine, random: SeededRandom): void {
  const { trace, clock, sink } = ground;
  trace.removeSink(sink);
  const port = machine.machine;
  const word = (): number => random.below(2 ** 32);
  for (let n = 0; n < 40; n++) {
    switch (random.below(6)) {
      case 0: {
        const bars = machine.pci.functions;
        const at = [...bars.values()].map((each) => each.barBase(0)).filter((base) => base >= 0);
        if (at.length > 0) port.store(at[random.below(EDU_BARS) % at.length]! + 4 * random.below(0x30), 4, word(), 0);
        break;
      }
      case 1:
        port.store(
          VIOMMU_BASE + [REG.fqh, REG.ipsr, REG.icvec, REG.msi_cfg_tbl, REG.tr_req_iova][random.below(5)]!,
          4,
          word(),
          0,
        );
        break;
      case 2:
        new DataView(machine.ram.buffer).setUint32(4 * random.below(machine.memoryBytes / 4), word());
        break;
      case 3:
        clock.advance(random.below(1_000_000));
        port.poll();
        break;
      case 4:
        machine.interrupts.raise(random.below(1024));
        machine.interrupts.setAlarm(random.below(100_000), 5);
        break;
      default:
        port.load(ECAM_BASE + 4 * random.below(4096), 4);
        port.load(RAM_BASE - 8 * random.below(1000), 8);
    }
  }
  trace.addSink(sink);
}

interface Ended {
  readonly trace: string;
  readonly events: number;
  readonly ram: string;
  readonly output: string;
  readonly now: number;
}

describe.each([
  ["over the host", true],
  ["with emulated devices", false],
])("the default component guest %s", (_name, hosted) => {
  let image: PreparedComponent;
  beforeAll(async () => {
    image = await soundImage(readFileSync((await buildFixtures())["nested-dma"]!));
  });

  /** Runs it; `at` is called at each trap. */
  function boot(at: (trap: number, world: WholeMachine, ground: Ground, machine: ComponentMachine) => void): Ended {
    const ground = new Ground(hosted);
    const { clock, trace, host, calls } = ground;
    const machine = new ComponentMachine({ clock, trace, calls, memoryBytes: 16 * 2 ** 20, report: () => {} });
    const world = { clock, trace, host, machine };
    let output = "";
    machine.machine.onConsole = (bytes) => {
      output += new TextDecoder().decode(bytes);
    };
    ground.devices(machine.assignment);
    const { machine: inner } = machine;
    let traps = 0;
    const trapped = (): void => at(traps++, world, ground, machine);
    const port: VcpuPort = {
      get high() {
        return inner.high;
      },
      get stopping() {
        return inner.stopping;
      },
      load(address, size) {
        trapped();
        return inner.load(address, size);
      },
      store(address, size, lo, hi) {
        trapped();
        inner.store(address, size, lo, hi);
      },
      wait() {
        trapped();
        return inner.wait();
      },
      poll() {
        trapped();
        return inner.poll();
      },
      console: (bytes) => inner.console(bytes),
    };
    // The platform tells of assigned devices only; models of the VM's own are behind its one IOMMU here.
    const platform = { ...machine.platform, iommuOf: () => 0 };
    const outcome = new ComponentVcpu({ image, memory: machine.ram, port, platform }).run();
    expect(outcome, output).toEqual({ kind: "exited", status: 0 });
    const { lines } = ground;
    return {
      trace: sha256(new TextEncoder().encode(lines.join("\n"))),
      events: lines.length,
      ram: sha256(new Uint8Array(machine.ram.buffer)),
      output,
      now: clock.now,
    };
  }

  it("does what it does when nobody saves it", () => {
    let last = 0;
    const undisturbed = boot((trap) => {
      last = trap;
    });
    expect(undisturbed.output).toMatch(/done: all steps hold\n$/);
    for (const seed of [1]) {
      const random = new SeededRandom(seed);
      const chosen = new Set(Array.from({ length: 5 }, () => random.below(last)));
      const saved = boot((trap, world, ground, machine) => {
        if (!chosen.has(trap)) return;
        const text = save(world);
        disturb(ground, machine, random);
        restore(world, text);
        expect(save(world) === text, `trap ${trap}: what was taken back is what was saved`).toBe(true);
      });
      expect(saved, `seed ${seed}`).toEqual(undisturbed);
    }
  });
});

const kernel = buildRiscv64NestedDma();
if (kernel === null)
  console.warn("SKIPPED: no riscv64-linux-gnu-gcc here, saving the bare-metal RV64 image is not tested");

describe.skipIf(kernel === null).each([
  ["over the host", true],
  ["with emulated devices", false],
])("the bare-metal RV64 guest %s", (_name, hosted) => {
  let core: WebAssembly.Module;
  beforeAll(async () => {
    core = await WebAssembly.compile(readFileSync(await buildHart()));
  });

  class KernelWorld implements WholeMachine {
    readonly ground = new Ground(hosted);
    readonly clock = this.ground.clock;
    readonly trace = this.ground.trace;
    readonly host = this.ground.host;
    readonly machine: Rv64Machine;
    output = "";
    over = false;

    constructor() {
      const { clock, trace, ground } = this;
      const memoryBytes = 16 * 2 ** 20;
      this.machine = new Rv64Machine({ core, clock, trace, memoryBytes, harts: 1, sliceInstructions: 5_000 });
      this.machine.machine.onConsole = (bytes) => {
        this.output += new TextDecoder().decode(bytes);
      };
      const kind = VIOMMU_KINDS[DEFAULT_KIND];
      const assignment = this.machine.iommuWorld({ kind, configuration: {}, calls: ground.calls, report: () => {} });
      ground.devices(assignment);
      this.machine.load({
        kernel: parseKernelImage(readFileSync(kernel!)),
        initrd: null,
        bootArguments: "",
        viommus: [{ base: VIOMMU_BASE, requesterIds: [0x08, 0x10] }],
        seed: new Uint8Array(32),
      });
    }

    /** A slice, and the idle time behind it. */
    step(): void {
      const stop = this.machine.run();
      if (stop.kind === "idle") this.machine.skipTo(stop.until);
      this.over = stop.kind === "off";
    }

    get ended(): Ended {
      const { lines } = this.ground;
      return {
        trace: sha256(new TextEncoder().encode(lines.join("\n"))),
        events: lines.length,
        ram: sha256(this.machine.core.ram),
        output: this.output,
        now: this.clock.now,
      };
    }
  }

  it("does, run on and taken back at random instants, what it does when nobody saves it", () => {
    const undisturbed = new KernelWorld();
    let steps = 0;
    for (; !undisturbed.over && steps < 10_000; steps++) undisturbed.step();
    expect(undisturbed.output).toMatch(/done: all steps hold\n$/);
    let taken = 0;
    let rewound = 0;
    for (const seed of [1]) {
      const world = new KernelWorld();
      const random = new SeededRandom(seed);
      const chosen = new Set(Array.from({ length: 5 }, () => random.below(steps - 1)));
      for (let step = 0; !world.over; step++) {
        if (chosen.has(step)) {
          const { lines } = world.ground;
          const text = save(world);
          const [events, output, calls] = [lines.length, world.output.length, world.ground.objectCalls];
          const far = 1 + random.below(20);
          for (let n = 0; n < far && !world.over && world.ground.objectCalls === calls; n++) world.step();
          // A guest that has made or ended an object of the host's is not taken back: the host's document finds objects, it makes none.
          if (world.ground.objectCalls === calls) {
            if (lines.length > events) rewound++;
            lines.length = events;
            world.output = world.output.slice(0, output);
            world.over = false;
            restore(world, text);
            expect(save(world) === text, `step ${step}: what was taken back is what was saved`).toBe(true);
            taken++;
          }
        }
        world.step();
      }
      expect(world.ended, `seed ${seed}`).toEqual(undisturbed.ended);
    }
    expect(taken).toBeGreaterThan(4);
    expect(rewound).toBeGreaterThan(0);
  });
});
