// `nestbox boot --kernel`: a machine for the kernel's instruction set, a console on this terminal, and assigned devices.

import { existsSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";
import { hex } from "../../host/base/address.ts";
import { SeededRandom } from "../../host/base/seeded-random.ts";
import type { HostDescription } from "../../host/description.ts";
import { ARCHITECTURES } from "../architectures.ts";
import type { Assignment } from "../assignment.ts";
import { type DescribedViommu, type KernelMachine, LARGEST_TREE } from "../kernel-machine.ts";
import { formatPlace, UNREACHABLE } from "../pci/host-bridge.ts";
import { compressionOf, type KernelImage, KernelImageError, parseKernelImage } from "../platform/kernel-image.ts";
import { kindOfArchitecture } from "../viommu/kinds.ts";
import { type BootOptions, DEFAULT_WALL_LIMIT, inspected, STOPPED } from "./boot-component.ts";
import { type ConsoleInput, openConsoleInput } from "./console.ts";
import { EXIT_FAILED, EXIT_PASS, EXIT_TIME_LIMIT, UsageError } from "./exit-codes.ts";
import { heldByDebugger } from "./gdb-server.ts";
import { assignmentsOf, HostRun } from "./host-run.ts";
import { fileProblem, readInput } from "./input-file.ts";
import { LivePace } from "./kernel-pace.ts";
import { MonitorPrompt } from "./monitor-prompt.ts";
import { RunningVm } from "./monitored-vm.ts";
import { debuggerAt, Monitoring, monitorAt } from "./monitoring.ts";
import { type ViommuChoice, viommuOf } from "./options.ts";
import { type KernelOutcome, runKernel } from "./run-kernel.ts";
import { RunShell } from "./run-shell.ts";
import type { RunImage, RunSource } from "./run-source.ts";
import { Termination } from "./termination.ts";

export interface KernelOptions {
  readonly initrd?: string;
  readonly append: string;
  /** Flattened device tree to boot with, and where the machine's own is written instead of booting. */
  readonly dtb?: string;
  readonly dumpDtb?: string;
  readonly cpus: number;
  readonly nvme: readonly string[];
  readonly interactive?: true;
  /** Whether a guest's reboot starts the machine anew; otherwise it ends the run. */
  readonly reboot: boolean;
}

const DEFAULT_MEMORY = 512 * 2 ** 20;
/** Bytes of a kernel or initrd: more than RAM holds. */
const LARGEST_FILE = 2 ** 31;
const PROJECT = new URL("../../../", import.meta.url);

/** Instructions between two looks at input, where somebody types. */
const INTERACTIVE_SLICE = 2_000_000;

/** Runs the machine, again after each reboot; the exit status. Without a choice of IOMMU: what kernels of the instruction set expect. */
export async function bootKernel(
  kernelFile: string,
  given: Omit<BootOptions, "viommu"> & KernelOptions & { readonly viommu?: ViommuChoice },
  sourceOf: (shell: RunShell, options: BootOptions & KernelOptions) => RunSource,
): Promise<number> {
  const kernelBytes = readFile(kernelFile, "--kernel");
  const kernel = parseKernel(kernelBytes, kernelFile);
  const options = { ...given, viommu: given.viommu ?? kindOfArchitecture(kernel.architecture) };
  if (options.cpus < 1 || options.cpus > 8) throw new UsageError("boot: --cpus takes 1 to 8");
  const memoryBytes = options.memory ?? DEFAULT_MEMORY;
  if (memoryBytes % 0x200000 !== 0 || memoryBytes > 2 ** 31) {
    throw new UsageError("boot: --memory takes a multiple of 2M up to 2G for a kernel");
  }
  const initrd = options.initrd === undefined ? null : readFile(options.initrd, "--initrd");
  const dtb = options.dtb === undefined ? null : readTree(options.dtb);
  const coreFile = fileURLToPath(new URL(ARCHITECTURES[kernel.architecture].core, PROJECT));
  const core = new WebAssembly.Module(new Uint8Array(readFile(coreFile, "the vCPU core (npm run build)")));
  const shell = new RunShell(options);
  const source = sourceOf(shell, options);
  const images: RunImage[] = [{ role: "kernel", file: kernelFile, bytes: kernelBytes }];
  if (initrd !== null) images.push({ role: "initrd", file: options.initrd!, bytes: initrd });
  if (dtb !== null) images.push({ role: "dtb", file: options.dtb!, bytes: dtb });
  const drives = options.nvme.map((file, index) => driveAt(file, index, source.live));
  source.begin(images);
  const run = new HostRun(shell, options, (host) => withDrives(host, drives), source);
  const random = new SeededRandom(options.seed);
  const monitoring =
    source.mayBeHeld && (options.interactive === true || options.monitor !== undefined || options.gdb !== undefined)
      ? await Monitoring.open(options, shell.trace)
      : null;
  if (options.monitor !== undefined) shell.message(monitorAt(options));
  const port = monitoring?.gdbPort ?? null;
  if (port !== null) shell.message(debuggerAt(port, options.paused === true));
  const wallDeadline = performance.now() + wallLimit(options) / 1e6;
  const termination = new Termination();
  // A replay asks nobody outside: the first signal ends it.
  if (!source.live) termination.close();
  let input: ConsoleInput | null = null;
  let instructions = 0;
  const pace = source.pace(() => {
    if (options.interactive === true) input = consoleInput(shell, monitoring);
    return new LivePace(wallDeadline, termination, input, monitoring);
  });
  try {
    for (;;) {
      const vm = assembleVm(
        { kernelFile, kernel, initrd, dtb, core, memoryBytes, drives, seed: random.bytes(32) },
        options,
        {
          shell,
          run,
        },
      );
      source.machine(vm.machine.machine);
      const { machine, assignment } = vm;
      if (options.dumpDtb !== undefined) {
        writeTree(options.dumpDtb, vm.tree);
        run.close(assignment);
        return EXIT_PASS;
      }
      const parts = { machine: machine.machine, pci: machine.pci, assignment, memoryBytes };
      const executed = () => instructions + machine.parts.core.executed;
      monitoring?.hold({
        vm: new RunningVm({
          run,
          vm: parts,
          position: () => ({
            instructions: executed(),
            cpus: machine.cpus.map((cpu) => ({ ...cpu, pc: hex(cpu.pc) })),
          }),
          quit: () => {},
        }),
        progress: executed,
        interrupt: () => machine.pause(),
        debugged: heldByDebugger(machine, run.host),
      });
      const outcome = await runKernel({
        machine,
        pace,
        control: monitoring?.control ?? null,
        flush: () => shell.betweenSlices(),
      });
      instructions += machine.parts.core.executed;
      if (outcome.kind === "reboot" && options.reboot) {
        shell.message("the guest reboots");
        run.retire(assignment);
        continue;
      }
      closeInput(input);
      source.end(outcome.kind, machine.machine.clock.now, instructions);
      shell.endConsoleLine();
      const counters = run.counters(assignment);
      const tree = inspected(options.inspect, run, parts);
      const end = source.stopped ? STOPPED : verdict(outcome);
      await monitoring?.close(end);
      run.close(assignment);
      return shell.finish({ ...end, instructions, ...tree }, counters);
    }
  } finally {
    await monitoring?.close({ status: EXIT_FAILED, detail: "the run failed" });
    closeInput(input);
    termination.close();
  }
}

function closeInput(input: ConsoleInput | null): void {
  input?.close();
}

/** The terminal: keys go to the guest, or from Ctrl-A c on to the monitor. */
function consoleInput(shell: RunShell, monitoring: Monitoring | null): ConsoleInput {
  const input = openConsoleInput((text) => shell.writeConsole(Buffer.from(text)));
  const history: string[] = [];
  if (monitoring !== null) input.onMonitor = () => new MonitorPrompt(monitoring.monitor, history);
  return input;
}

/** Interactive terminals have no limit unless one is given. */
function wallLimit(options: BootOptions & KernelOptions): number {
  if (options.wallLimit !== undefined) return options.wallLimit;
  return options.interactive === true && process.stdin.isTTY ? Number.POSITIVE_INFINITY : DEFAULT_WALL_LIMIT;
}

interface VmPlan {
  readonly kernelFile: string;
  readonly kernel: KernelImage;
  readonly initrd: Uint8Array | null;
  /** Handed to the guest in place of the machine's own. */
  readonly dtb: Uint8Array | null;
  readonly core: WebAssembly.Module;
  readonly memoryBytes: number;
  readonly drives: readonly Drive[];
  readonly seed: Uint8Array;
}

/** A machine as after power-on, its devices assigned, its kernel loaded. */
function assembleVm(
  plan: VmPlan,
  options: BootOptions & KernelOptions,
  { shell, run }: { readonly shell: RunShell; readonly run: HostRun },
): { machine: KernelMachine; assignment: Assignment; tree: Uint8Array } {
  const { kernelFile, kernel, initrd, dtb, core, memoryBytes, drives, seed } = plan;
  const { clock, trace } = shell;
  const slice = options.interactive === true ? { sliceInstructions: INTERACTIVE_SLICE } : {};
  const machine = ARCHITECTURES[kernel.architecture].create(core, {
    clock,
    trace,
    memoryBytes,
    cpus: options.cpus,
    ...slice,
  });
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

const FDT_MAGIC = 0xd00dfeed;

/** A flattened device tree as far as its header says that it is one. */
function readTree(file: string): Uint8Array {
  const bytes = readInput(file, LARGEST_TREE, `--dtb ${file}`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const whole = bytes.length >= 40 && view.getUint32(0) === FDT_MAGIC && view.getUint32(4) <= bytes.length;
  if (!whole) throw new UsageError(`--dtb ${file}: not a flattened device tree (dtc -O dtb makes one)`);
  return bytes;
}

function writeTree(file: string, tree: Uint8Array): void {
  try {
    writeFileSync(file, tree);
  } catch (error) {
    throw new UsageError(`--dump-dtb ${file}: ${fileProblem(error)}`);
  }
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

interface Drive {
  readonly file: string;
  readonly bdf: string;
  readonly routingId: number;
}

/** Drive n: host function 0000:40:<n>.0, guest function 00:<16 + n>.0. */
function driveAt(file: string, index: number, live: boolean): Drive {
  if (index > 15) throw new UsageError("boot: at most 16 --nvme drives");
  if (live && !existsSync(file))
    throw new UsageError(`--nvme ${file}: no such file (truncate -s 1G ${file} makes one)`);
  return { file, bdf: `0000:40:${index.toString(16).padStart(2, "0")}.0`, routingId: (16 + index) << 3 };
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

function verdict(outcome: KernelOutcome): { status: number; detail: string } {
  switch (outcome.kind) {
    case "off":
      return outcome.failure
        ? { status: EXIT_FAILED, detail: "the guest reported a system failure" }
        : { status: EXIT_PASS, detail: "powered off" };
    case "reboot":
      return outcome.failure
        ? { status: EXIT_FAILED, detail: "the guest asked for a reboot after a system failure" }
        : { status: EXIT_PASS, detail: "the guest asked for a reboot" };
    case "signal":
      return { status: EXIT_FAILED, detail: `ended by ${outcome.signal}` };
    case "event":
      return STOPPED;
    case "quit":
      return { status: EXIT_PASS, detail: "ended on request" };
    case "stuck":
      return { status: EXIT_FAILED, detail: "every CPU waits for an interrupt that can never come" };
    case "time-limit":
      return { status: EXIT_TIME_LIMIT, detail: "the limit on virtual time" };
    case "wall-limit":
      return { status: EXIT_TIME_LIMIT, detail: "the limit on wall time (--wall-limit)" };
  }
}

function parseKernel(given: Uint8Array, file: string): KernelImage {
  let bytes = given;
  if (compressionOf(bytes) === "gzip") {
    try {
      bytes = gunzipSync(bytes, { maxOutputLength: 2 ** 30 });
    } catch {
      throw new UsageError(`${file}: a damaged gzip file`);
    }
  }
  try {
    return parseKernelImage(bytes);
  } catch (error) {
    if (error instanceof KernelImageError) throw new UsageError(`${file}: ${error.message}`);
    throw error;
  }
}

function readFile(file: string, what: string): Uint8Array {
  return readInput(file, LARGEST_FILE, `${what} ${file}`);
}
