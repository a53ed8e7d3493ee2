// The host and the machine of a kernel's run, put together: as the run begins, and after each reboot. The same again however often it is made, by the same
// system calls: that is what a replay that goes back stands on (timeline.ts).

import { SeededRandom } from "../../host/base/seeded-random.ts";
import type { HostDescription } from "../../host/description.ts";
import { ARCHITECTURES } from "../architectures.ts";
import type { Assignment } from "../assignment.ts";
import type { DescribedViommu, KernelMachine } from "../kernel-machine.ts";
import { formatPlace, UNREACHABLE } from "../pci/host-bridge.ts";
import { type ImageBytes, type KernelImage, KernelImageError } from "../platform/kernel-image.ts";
import type { VmParts } from "../view/machine-tree.ts";
import type { BootOptions } from "./boot-run.ts";
import { UsageError } from "./exit-codes.ts";
import { assignmentsOf, HostRun } from "./host-run.ts";
import { inlineMore } from "./inlining.ts";
import type { RunShell } from "./run-shell.ts";
import type { RunSource } from "./run-source.ts";
import { viommuOf } from "./viommu-choice.ts";

/** A drive of --nvme. */
export interface Drive {
  readonly file: string;
  readonly bdf: string;
  readonly routingId: number;
}

export interface KernelPlan {
  readonly kernelFile: string;
  readonly kernel: KernelImage;
  readonly initrd: ImageBytes | null;
  /** Handed to the guest in place of the machine's own. */
  readonly dtb: Uint8Array | null;
  readonly core: WebAssembly.Module;
  readonly memoryBytes: number;
  readonly drives: readonly Drive[];
  readonly options: BootOptions & { readonly append: string; readonly cpus: number; readonly interactive?: true };
  /** Instructions between two looks outside, where that is not the machine's own longest. */
  readonly slice?: number;
}

export class KernelWorld {
  readonly run: HostRun;
  readonly machine: KernelMachine;
  readonly assignment: Assignment;
  /** The machine's own device tree. */
  readonly tree: Uint8Array;
  /** Reboots before this machine, and instructions of the machines before it. */
  readonly boots: number;
  readonly #earlier: number;
  readonly #plan: KernelPlan;
  readonly #shell: RunShell;

  private constructor(plan: KernelPlan, shell: RunShell, run: HostRun, boots: number, earlier: number) {
    this.#plan = plan;
    this.#shell = shell;
    this.run = run;
    this.boots = boots;
    this.#earlier = earlier;
    const random = new SeededRandom(plan.options.seed);
    let seed = random.bytes(32);
    for (let n = 0; n < boots; n++) seed = random.bytes(32);
    ({ machine: this.machine, assignment: this.assignment, tree: this.tree } = assembleVm(plan, shell, run, seed));
  }

  /** A host, and the first machine on it. Throws UsageError. */
  static begin(plan: KernelPlan, shell: RunShell, source: RunSource): KernelWorld {
    const run = new HostRun(shell, plan.options, (host) => withDrives(host, plan.drives), source);
    return new KernelWorld(plan, shell, run, 0, 0);
  }

  /** The machine after this one's reboot, on the same host. */
  reboot(): KernelWorld {
    const { run, assignment, boots, instructions } = this;
    run.retire(assignment);
    return new KernelWorld(this.#plan, this.#shell, run, boots + 1, instructions);
  }

  /** Instructions executed since the run began. */
  get instructions(): number {
    return this.#earlier + this.machine.parts.core.executed;
  }

  get parts(): VmParts {
    const { machine, assignment } = this;
    return { machine: machine.machine, pci: machine.pci, assignment, memoryBytes: this.#plan.memoryBytes };
  }
}

/** A machine as after power-on, its devices assigned, its kernel loaded. */
function assembleVm(
  plan: KernelPlan,
  shell: RunShell,
  run: HostRun,
  seed: Uint8Array,
): { machine: KernelMachine; assignment: Assignment; tree: Uint8Array } {
  const { kernelFile, kernel, initrd, dtb, core, memoryBytes, drives, options, slice } = plan;
  const { clock, trace } = shell;
  const machine = ARCHITECTURES[kernel.architecture].create(core, {
    clock,
    trace,
    memoryBytes,
    cpus: options.cpus,
    ...(slice === undefined ? {} : { sliceInstructions: slice }),
  });
  machine.onManyCommands = inlineMore;
  machine.machine.timeLimit = options.timeLimit ?? Number.POSITIVE_INFINITY;
  shell.watchMachine(machine.machine, { lines: false });
  const assignment = machine.iommuWorld({
    configuration: {},
    calls: run.calls,
    ...viommuOf(options.viommu),
    allowSharedGroup: options.allowSharedGroup === true,
    report: (message) => shell.message(message),
  });
  run.assignAll(assignment, [
    ...assignmentsOf(options.assign),
    ...drives.map(({ file, bdf, routingId }) => ({ text: `--nvme ${file}`, hostName: bdf, place: { routingId } })),
  ]);
  let tree: Uint8Array = new Uint8Array(0);
  try {
    const viommus = viommusOf(assignment);
    const platformDevices = assignment.platform.entries;
    const editTree = (described: Uint8Array): Uint8Array => {
      tree = described;
      return dtb ?? described;
    };
    machine.load({ kernel, initrd, bootArguments: options.append, viommus, platformDevices, seed, editTree });
  } catch (error) {
    if (error instanceof KernelImageError) throw new UsageError(`${kernelFile}: ${error.message}`);
    throw error;
  }
  return { machine, assignment, tree };
}

/** The vIOMMUs as the device tree names them. Throws UsageError for what no tree can say. */
function viommusOf(assignment: Assignment): DescribedViommu[] {
  const unnumbered = assignment.devices.filter(({ routingId }) => routingId === UNREACHABLE);
  const other = unnumbered.find(({ viommu }) => viommu !== unnumbered[0]!.viommu);
  if (other !== undefined) {
    const [a, b] = [unnumbered[0]!, other].map(({ request }) => formatPlace(request));
    throw new UsageError(
      `boot: guest devices ${a} and ${b} are behind root ports, whose buses the guest numbers, and behind two vIOMMUs: ` +
        "no device tree can say which bus goes where; put them behind one (HOST-BDF@GUEST-BDF/NAME)",
    );
  }
  return assignment.viommus.map((viommu) => {
    const behind = assignment.devices.filter((entry) => entry.viommu === viommu && entry.routingId !== UNREACHABLE);
    const requesterIds = behind.map(({ routingId }) => routingId);
    const hardwareQueues = viommu.viommu.hardwareQueues === true;
    const otherIds = unnumbered[0]?.viommu === viommu;
    const behindPorts = otherIds ? unnumbered.map(({ request }) => request) : [];
    return { base: viommu.base, requesterIds, otherIds, behindPorts, hardwareQueues };
  });
}

/** The host with the drives plugged in behind its first IOMMU. */
function withDrives(host: HostDescription, drives: readonly Drive[]): HostDescription {
  const iommu = host.iommus[0]?.name;
  const devices = drives.map(({ file, bdf }) => ({
    model: "nvme" as const,
    bdf,
    ...(iommu === undefined ? {} : { iommu }),
    options: { file },
  }));
  return { ...host, devices: [...host.devices, ...devices] };
}
