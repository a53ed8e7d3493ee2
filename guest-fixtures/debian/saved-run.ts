// A boot of the Debian fixture in this process that is saved as text at random instants, runs on, is taken back and goes on: its trace, console
// and RAM must be those of the boot that was not.

import { createHash, type Hash } from "node:crypto";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Clock } from "../../host/base/clock.ts";
import { SeededRandom } from "../../host/base/seeded-random.ts";
import { decodeState, encodeState } from "../../host/base/state-text.ts";
import { Trace } from "../../host/base/trace.ts";
import { traceLine } from "../../host/base/trace-json.ts";
import { builtInHosts, DEFAULT_HOST } from "../../host/built-in-hosts.ts";
import { Host } from "../../host/host.ts";
import { CountingCalls } from "../../vmm/counting-calls.ts";
import type { KernelStop } from "../../vmm/kernel-machine.ts";
import { parseKernelImage } from "../../vmm/platform/kernel-image.ts";
import { Rv64Machine } from "../../vmm/rv64-machine.ts";
import { DEFAULT_KIND, VIOMMU_KINDS } from "../../vmm/viommu/kinds.ts";
import { restoreWhole, saveWhole } from "../../vmm/whole-machine.ts";
import type { DebianFixture } from "./recipe.ts";

const CORE = fileURLToPath(new URL("../../../vmm/vcpu/riscv64/build/hart.wasm", import.meta.url));
const MEMORY = 256 * 2 ** 20;
const SLICE = 1_000_000;
const DRIVE = "0000:40:00.0";
const GUEST_DRIVE = 0x80;

export interface SavedRunOptions {
  readonly fixture: DebianFixture;
  /** Words for init.sh. */
  readonly words: string;
  readonly cpus: number;
  /** Slices before which it is saved, and the most slices it then runs on for until the trace has something to take back. */
  readonly saves: ReadonlySet<number>;
  readonly farthest: number;
  readonly seed: number;
}

export interface SavedRunEnd {
  readonly slices: number;
  readonly trace: string;
  readonly ram: string;
  readonly console: string;
  readonly poweredOff: boolean;
  /** How often it was taken back, and how often from somewhere else in the trace. */
  readonly taken: number;
  readonly rewound: number;
}

export function savedRun({ fixture, words, cpus, saves, farthest, seed }: SavedRunOptions): SavedRunEnd {
  const clock = new Clock();
  const trace = new Trace(clock);
  clock.trace = trace;
  let hash: Hash = createHash("sha256");
  let events = 0;
  trace.addSink({
    event: (event) => {
      hash.update(`${traceLine(event)}\n`);
      events++;
    },
  });
  const description = builtInHosts.find(({ name }) => name === DEFAULT_HOST)!;
  const iommu = description.iommus[0]!.name;
  const drive = { model: "nvme" as const, bdf: DRIVE, iommu, options: {} };
  const host = new Host({ ...description, devices: [...description.devices, drive] }, { clock, trace });
  const calls = new CountingCalls(host.createProcess());
  const core = new WebAssembly.Module(readFileSync(CORE));
  const machine = new Rv64Machine({ core, clock, trace, memoryBytes: MEMORY, harts: cpus, sliceInstructions: SLICE });
  let text = "";
  machine.machine.onConsole = (bytes) => {
    text += new TextDecoder("latin1").decode(bytes);
  };
  const kind = VIOMMU_KINDS[DEFAULT_KIND];
  const assignment = machine.iommuWorld({ kind, configuration: {}, calls, report: () => {} });
  assignment.assign({ ...host.assignable(DRIVE), routingId: GUEST_DRIVE });
  machine.load({
    kernel: parseKernelImage(readFileSync(fixture.kernel)),
    initrd: readFileSync(fixture.initrd),
    bootArguments: `console=ttyS0 cryptomgr.notests ${words}`,
    viommus: assignment.viommus.map(({ base }) => ({ base, requesterIds: [GUEST_DRIVE] })),
    seed: new Uint8Array(32),
  });

  const world = { clock, trace, host, machine };
  const random = new SeededRandom(seed);
  // While no call was made but these, the host has the objects that it had: a document finds objects, it makes none.
  const objectCalls = (): number => {
    const { IOMMU_HWPT_INVALIDATE: _, ...rest } = calls.counts;
    return Object.values(rest).reduce((sum: number, count) => sum + (count ?? 0), 0);
  };
  let [taken, rewound, slices] = [0, 0, 0];
  let stop: KernelStop = machine.run();
  const isOver = (): boolean => stop.kind === "off" || stop.kind === "stopped";
  const step = (): void => {
    if (stop.kind === "idle") machine.skipTo(stop.until);
    stop = machine.run();
  };
  for (; !isOver(); slices++) {
    if (saves.has(slices)) {
      const document = encodeState(saveWhole(world));
      const before = { hash: hash.copy(), events, text, stop, calls: objectCalls() };
      const far = 1 + random.below(10);
      const goesOn = (n: number): boolean => n < far || (n < farthest && events === before.events);
      for (let n = 0; goesOn(n) && !isOver() && objectCalls() === before.calls; n++) step();
      if (objectCalls() === before.calls) {
        if (events > before.events) rewound++;
        ({ hash, events, text, stop } = before);
        restoreWhole(world, decodeState(document));
        taken++;
      }
    }
    step();
  }
  const end = stop as KernelStop;
  return {
    slices,
    trace: hash.digest("hex"),
    ram: createHash("sha256").update(machine.core.ram).digest("hex"),
    console: text,
    poweredOff: end.kind === "off" && !end.failure,
    taken,
    rewound,
  };
}
