// `nestbox boot --kernel`: a machine for the kernel's instruction set, a console on this terminal, and assigned devices.

import { existsSync, writeFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { packageFile } from "../../host/adapters/package-root.ts";
import { hex } from "../../host/base/address.ts";
import { ARCHITECTURES } from "../architectures.ts";
import { LARGEST_TREE } from "../kernel-machine.ts";
import {
  compressionOf,
  IMAGE_HEADER,
  type KernelImage,
  KernelImageError,
  parseKernelImage,
  parseLinuxImage,
} from "../platform/kernel-image.ts";
import { kindOfArchitecture } from "../viommu/kinds.ts";
import {
  type BootOptions,
  DEFAULT_WALL_LIMIT,
  inspected,
  type KernelOptions,
  type SourceOf,
  STOPPED,
} from "./boot-run.ts";
import { type ConsoleInput, openConsoleInput } from "./console.ts";
import { EXIT_FAILED, EXIT_PASS, EXIT_TIME_LIMIT, UsageError } from "./exit-codes.ts";
import { heldByDebugger } from "./gdb-server.ts";
import { ImageFile } from "./image-file.ts";
import { fileProblem, readInput } from "./input-file.ts";
import { keepFreedMemory } from "./kept-heap.ts";
import { LivePace } from "./kernel-pace.ts";
import { type Drive, type KernelPlan, KernelWorld } from "./kernel-world.ts";
import { MonitorPrompt } from "./monitor-prompt.ts";
import { RunningVm } from "./monitored-vm.ts";
import { debuggerAt, Monitoring, monitorAt } from "./monitoring.ts";
import { WatchedReplay } from "./replay-pace.ts";
import { type KernelOutcome, runKernel } from "./run-kernel.ts";
import { RunShell } from "./run-shell.ts";
import type { RunImage, RunSource } from "./run-source.ts";
import { Termination } from "./termination.ts";
import type { Timeline } from "./timeline.ts";
import type { ViommuChoice } from "./viommu-choice.ts";

const DEFAULT_MEMORY = 512 * 2 ** 20;
/** Bytes of a kernel or initrd: more than RAM holds. */
const LARGEST_FILE = 2 ** 31;

/** Instructions between two looks at input, where somebody types. */
const INTERACTIVE_SLICE = 2_000_000;

type GivenOptions = Omit<BootOptions, "viommu"> & KernelOptions & { readonly viommu?: ViommuChoice };

/** Runs the machine, again after each reboot; the exit status. Without a choice of IOMMU: what kernels of the instruction set expect. */
export async function bootKernel(
  kernelFile: string,
  given: GivenOptions,
  sourceOf: SourceOf<BootOptions & KernelOptions>,
): Promise<number> {
  keepFreedMemory();
  const files: ImageFile[] = [];
  const open = (file: string, what: string): ImageFile => {
    const opened = new ImageFile(file, LARGEST_FILE, `${what} ${file}`);
    files.push(opened);
    return opened;
  };
  try {
    const images = {
      kernel: open(kernelFile, "--kernel"),
      initrd: given.initrd === undefined ? null : open(given.initrd, "--initrd"),
    };
    return await bootImages(kernelFile, images, given, sourceOf);
  } finally {
    for (const file of files) file.close();
  }
}

async function bootImages(
  kernelFile: string,
  { kernel: kernelImage, initrd }: { readonly kernel: ImageFile; readonly initrd: ImageFile | null },
  given: GivenOptions,
  sourceOf: SourceOf<BootOptions & KernelOptions>,
): Promise<number> {
  const kernel = parseKernel(kernelImage, kernelFile);
  const options = { ...given, viommu: given.viommu ?? kindOfArchitecture(kernel.architecture) };
  if (options.cpus < 1 || options.cpus > 8) throw new UsageError("boot: --cpus takes 1 to 8");
  const memoryBytes = options.memory ?? DEFAULT_MEMORY;
  if (memoryBytes % 0x200000 !== 0 || memoryBytes > 2 ** 31) {
    throw new UsageError("boot: --memory takes a multiple of 2M up to 2G for a kernel");
  }
  const dtb = options.dtb === undefined ? null : readTree(options.dtb);
  const coreFile = packageFile(ARCHITECTURES[kernel.architecture].core);
  const core = new WebAssembly.Module(new Uint8Array(readFile(coreFile, "the vCPU core (npm run build)")));
  const shell = new RunShell(options);
  const source = sourceOf(shell, options);
  const images: RunImage[] = [{ role: "kernel", file: kernelFile, contents: () => kernelImage.bytes }];
  if (initrd !== null) images.push({ role: "initrd", file: options.initrd!, contents: () => initrd.bytes });
  if (dtb !== null) images.push({ role: "dtb", file: options.dtb!, contents: () => dtb });
  const drives = options.nvme.map((file, index) => driveAt(file, index, source.live));
  source.begin(images);
  const interactive = options.interactive === true;
  const slice = interactive ? { slice: INTERACTIVE_SLICE } : {};
  const plan = { kernelFile, kernel, initrd, dtb, core, memoryBytes, drives, options, ...slice };
  if (options.dumpDtb !== undefined) {
    const { run, assignment, tree } = KernelWorld.begin(plan, shell, source);
    writeTree(options.dumpDtb, tree);
    run.close(assignment);
    return EXIT_PASS;
  }
  const watched = options.monitor !== undefined || options.gdb !== undefined;
  const held = (interactive && source.live) || watched || source.trip !== null;
  const monitoring = held ? await Monitoring.open(options, shell.trace) : null;
  const boot = new KernelBoot(plan, shell, source, monitoring);
  try {
    if (options.monitor !== undefined) shell.message(monitorAt(options));
    return await boot.run();
  } catch (error) {
    boot.abandon();
    shell.abandon();
    throw error;
  } finally {
    await monitoring?.close({ status: EXIT_FAILED, detail: "the run failed" });
    boot.close();
  }
}

/** The run of a kernel, from its first machine to the end. */
class KernelBoot {
  readonly #plan: KernelPlan & { readonly options: BootOptions & KernelOptions };
  readonly #shell: RunShell;
  readonly #source: RunSource;
  readonly #monitoring: Monitoring | null;
  readonly #termination = new Termination();
  #input: ConsoleInput | null = null;
  #world: KernelWorld | null = null;

  constructor(
    plan: KernelPlan & { readonly options: BootOptions & KernelOptions },
    shell: RunShell,
    source: RunSource,
    monitoring: Monitoring | null,
  ) {
    this.#plan = plan;
    this.#shell = shell;
    this.#source = source;
    this.#monitoring = monitoring;
    // A replay that nobody holds asks nobody outside: the first signal ends it.
    if (!source.live && monitoring === null) this.#termination.close();
  }

  async run(): Promise<number> {
    const shell = this.#shell;
    const source = this.#source;
    const monitoring = this.#monitoring;
    const wallDeadline = performance.now() + wallLimit(this.#plan.options) / 1e6;
    const begin = () => KernelWorld.begin(this.#plan, shell, source);
    const onWorld = (world: KernelWorld, timeline?: Timeline) => this.#take(world, timeline);
    const { monitor, gdb } = this.#plan.options;
    const stays = monitor !== undefined || gdb !== undefined;
    const keeps = stays || source.trip?.back !== undefined;
    const control = monitoring?.control ?? null;
    const timeline = control === null ? null : source.timeline({ shell, control, begin, onWorld, keeps });
    if (timeline === null) onWorld(begin());
    // A debugger does not wait long for its first answer.
    const port = monitoring?.gdbPort ?? null;
    if (port !== null) shell.message(debuggerAt(port, this.#plan.options.paused === true));
    const pace = source.pace(() => {
      if (this.#plan.options.interactive === true) this.#input = consoleInput(shell, monitoring);
      return new LivePace(wallDeadline, this.#termination, this.#input, monitoring);
    });
    const watched =
      monitoring === null || timeline === null
        ? null
        : new WatchedReplay({
            ...{ pace, gate: monitoring, timeline, termination: this.#termination, trip: source.trip ?? {} },
            stays,
          });
    for (;;) {
      const outcome = await runKernel({
        machine: () => this.world.machine,
        pace: watched ?? pace,
        control,
        flush: () => shell.betweenSlices(),
      });
      if (outcome.kind === "reboot" && this.#plan.options.reboot) {
        shell.message("the guest reboots");
        const next = this.world.reboot();
        if (timeline === null) this.#take(next);
        else timeline.world = next;
        continue;
      }
      if (watched !== null && (await watched.goesOn())) continue;
      if (watched?.ended === true) source.cut();
      return await this.#end(outcome);
    }
  }

  /** It has failed: nothing of it is looked at again. */
  abandon(): void {
    this.#world?.run.abandon();
  }

  close(): void {
    closeInput(this.#input);
    this.#termination.close();
  }

  get world(): KernelWorld {
    return this.#world!;
  }

  /** From now on the run is this machine's. */
  #take(world: KernelWorld, timeline: Timeline | null = null): void {
    const source = this.#source;
    const { machine, run, parts } = world;
    this.#world = world;
    source.machine(machine.machine);
    const { clock } = machine.machine;
    source.run = {
      place: () => ({ instructions: world.instructions, ns: clock.now }),
      settle: () => machine.machine.settle(),
    };
    source.onPlaced = () => machine.pause();
    const vm = new RunningVm({
      run,
      vm: parts,
      position: () => ({
        instructions: world.instructions,
        ...(source.live ? {} : { lastEvent: this.#shell.trace.last }),
        cpus: machine.cpus.map((cpu) => ({ ...cpu, pc: hex(cpu.pc) })),
      }),
      quit: () => {},
      changes: (change) => source.changes(change),
      ...(source.live ? {} : { replay: timeline }),
    });
    source.onChange = (change) => vm.again(change);
    this.#monitoring?.hold({
      vm,
      progress: () => world.instructions,
      interrupt: () => machine.pause(),
      debugged: heldByDebugger(machine, run.host),
      ...(timeline === null ? {} : { past: timeline }),
    });
  }

  async #end(outcome: KernelOutcome): Promise<number> {
    const { world } = this;
    const shell = this.#shell;
    const source = this.#source;
    closeInput(this.#input);
    source.end(outcome.kind, shell.clock.now, world.instructions);
    shell.endConsoleLine();
    const counters = world.run.counters(world.assignment);
    const tree = inspected(this.#plan.options.inspect, world.run, world.parts);
    const end = source.stopped ? STOPPED : verdict(outcome);
    await this.#monitoring?.close(end);
    world.run.close(world.assignment);
    return shell.finish({ ...end, instructions: world.instructions, ...tree }, counters);
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

/** Drive n: host function 0000:40:<n>.0, guest function 00:<16 + n>.0. */
function driveAt(file: string, index: number, live: boolean): Drive {
  if (index > 15) throw new UsageError("boot: at most 16 --nvme drives");
  if (live && !existsSync(file))
    throw new UsageError(`--nvme ${file}: no such file (truncate -s 1G ${file} makes one)`);
  return { file, bdf: `0000:40:${index.toString(16).padStart(2, "0")}.0`, routingId: (16 + index) << 3 };
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

function parseKernel(given: ImageFile, file: string): KernelImage {
  try {
    const header = given.head(IMAGE_HEADER);
    const compressed = compressionOf(header) === "gzip";
    return (
      (compressed ? null : parseLinuxImage(header, given)) ??
      parseKernelImage(compressed ? unpacked(given.bytes, file) : given.bytes)
    );
  } catch (error) {
    if (error instanceof KernelImageError) throw new UsageError(`${file}: ${error.message}`);
    throw error;
  }
}

function unpacked(bytes: Uint8Array, file: string): Uint8Array {
  try {
    return gunzipSync(bytes, { maxOutputLength: 2 ** 30 });
  } catch {
    throw new UsageError(`${file}: a damaged gzip file`);
  }
}

function readFile(file: string, what: string): Uint8Array {
  return readInput(file, LARGEST_FILE, `${what} ${file}`);
}
