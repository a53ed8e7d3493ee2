// `boot --record FILE`: a machine's run written down, and the run again from it. The images are not in it, their hashes are.

import { createHash, type Hash } from "node:crypto";
import * as z from "zod";
import { Answers, type AnswersMark, ReplayDifference } from "../../host/adapters/recording/expected-records.ts";
import { MACHINE_KIND, MACHINE_RECORDS_VERSION } from "../../host/adapters/recording/machine-records.ts";
import { RecordedDrives } from "../../host/adapters/recording/recorded-drives.ts";
import { RecordingError } from "../../host/adapters/recording/recording-format.ts";
import type { RecordingReader } from "../../host/adapters/recording/recording-reader.ts";
import { RecordingWriter } from "../../host/adapters/recording/recording-writer.ts";
import { ReplayedDrives } from "../../host/adapters/recording/replayed-drives.ts";
import { HostDescriptionError, parseHost } from "../../host/description.ts";
import type { BlockStore } from "../../host/devices/nvme/block-store.ts";
import type { SystemCalls } from "../../host/uapi/system-calls.ts";
import type { Machine } from "../machine.ts";
import { VIOMMU_KINDS } from "../viommu/kinds.ts";
import type { BootOptions, KernelOptions } from "./boot-run.ts";
import { CallLog } from "./call-log.ts";
import { UsageError } from "./exit-codes.ts";
import { findHost } from "./hosts.ts";
import { readInput } from "./input-file.ts";
import type { KernelPace } from "./kernel-pace.ts";
import { type PacedRun, RecordedPace, ReplayedPace, writeChange } from "./recorded-pace.ts";
import { LiveSource, type RunImage, type Trip } from "./run-source.ts";
import { Timeline, type TimelineParts } from "./timeline.ts";
import { version } from "./version.ts";
import { hostOf } from "./viommu-choice.ts";

type Options = BootOptions & Partial<KernelOptions>;

/** What of the options makes the machine and its host; the rest is about output. */
const optionsShape = z.object({
  host: z.unknown(),
  viommu: z.enum(["none", ...(Object.keys(VIOMMU_KINDS) as (keyof typeof VIOMMU_KINDS)[])]),
  assign: z.array(z.string()),
  allowSharedGroup: z.literal(true).optional(),
  inject: z.array(z.string()).optional(),
  seed: z.int().nonnegative(),
  memory: z.number().positive().optional(),
  timeLimit: z.number().positive().optional(),
  append: z.string().optional(),
  cpus: z.int().optional(),
  nvme: z.array(z.string()).optional(),
  reboot: z.boolean().optional(),
  interactive: z.literal(true).optional(),
});
const runShape = z.object({
  images: z.array(
    z.object({ role: z.enum(["kernel", "initrd", "dtb", "image"]), file: z.string(), sha256: z.string() }),
  ),
  options: optionsShape,
});
const resultShape = z.object({
  kind: z.string(),
  virtualNs: z.number(),
  instructions: z.number(),
  console: z.string(),
});

const hashOf = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

/** Writes down what comes from this computer. */
export class RecordedSource extends LiveSource {
  readonly #path: string;
  readonly #options: Options;
  readonly #say: (line: string) => void;
  #writer: RecordingWriter | null = null;
  #pace: RecordedPace | null = null;
  #drives: RecordedDrives | null = null;

  constructor(path: string, options: Options, say: (line: string) => void) {
    super();
    this.#path = path;
    this.#options = options;
    this.#say = say;
  }

  override begin(images: readonly RunImage[]): void {
    const { host, viommu, ...others } = this.#options;
    const described = typeof host === "object" ? host : findHost(host ?? hostOf(viommu));
    const run = {
      images: images.map(({ role, file, contents }) => ({ role, file, sha256: hashOf(contents()) })),
      options: optionsShape.parse({ ...others, viommu, host: described }),
    };
    const header = JSON.parse(
      JSON.stringify(
        { kind: MACHINE_KIND, version: MACHINE_RECORDS_VERSION, nestbox: version(), run },
        (_key, value) => (typeof value === "bigint" ? `0x${value.toString(16)}` : value),
      ),
    );
    try {
      this.#writer = new RecordingWriter(this.#path, header, this.#say);
    } catch (error) {
      if (error instanceof RecordingError) throw new UsageError(`--record ${error.message}`);
      throw error;
    }
    this.#drives = new RecordedDrives(this.#writer);
    // A run that a bug of ours ends has been recorded until then.
    process.on("exit", () => this.#writer?.close(null));
  }

  override openBlockFile(...[path, blockBytes, onProblem]: Parameters<LiveSource["openBlockFile"]>) {
    return this.#drives!.open(super.openBlockFile(path, blockBytes, onProblem));
  }

  override pace(live: () => KernelPace): KernelPace {
    this.#pace = new RecordedPace(live(), this.#writer!, runOf(this));
    return this.#pace;
  }

  override changes(change: string): void {
    if (this.#pace !== null) this.#pace.changed(change);
    else writeChange(this.#writer!, this.run, false, change);
  }

  override machine(machine: Machine): void {
    this.listen(machine);
  }

  override end(kind: string, virtualNs: number, instructions: number): void {
    this.#writer!.close(this.result(kind, virtualNs, instructions));
  }
}

/** The options and the images of a recorded run. Throws RecordingError. */
export function machineRun(
  reader: RecordingReader,
  elsewhere: readonly string[],
): { readonly options: Options; readonly files: ReadonlyMap<RunImage["role"], string> } {
  const { header, name } = reader;
  if (header.version !== MACHINE_RECORDS_VERSION) {
    throw new RecordingError(
      `${name}: holds records of a machine in version ${header.version}; this nestbox has version ${MACHINE_RECORDS_VERSION}`,
    );
  }
  if (header.nestbox !== version()) {
    throw new RecordingError(`${name}: was made by nestbox ${header.nestbox}; this is ${version()}`);
  }
  const parsed = runShape.safeParse(header.run);
  if (!parsed.success) throw new RecordingError(`${name}: its header does not describe a machine's run`);
  const { images, options } = parsed.data;
  let host: ReturnType<typeof parseHost>;
  try {
    host = parseHost(options.host, `${name}: its host`);
  } catch (error) {
    if (error instanceof HostDescriptionError) throw new RecordingError(error.message);
    throw error;
  }
  const files = new Map<RunImage["role"], string>();
  for (const { role, file, sha256 } of images) {
    const found = [file, ...elsewhere].find((place) => hasHash(place, sha256));
    if (found === undefined) {
      throw new RecordingError(
        `${name}: needs the ${role} ${file} as it was (SHA-256 ${sha256}); --image FILE says where it is now`,
      );
    }
    files.set(role, found);
  }
  return { options: { ...(options as unknown as Options), host, report: "text" }, files };
}

function hasHash(file: string, sha256: string): boolean {
  try {
    return hashOf(readInput(file, 2 ** 31)) === sha256;
  } catch {
    return false;
  }
}

/** What a replay is told of the place where it stands in a recording, to come back to. */
export interface ReplayMark {
  readonly answers: AnswersMark;
  readonly console: Hash;
  readonly printed: number;
}

/** Gives a machine what was recorded. */
export class ReplayedSource extends LiveSource {
  override readonly live = false;
  /** The replay ends before its run does. */
  reached = false;
  #log: CallLog | null = null;
  readonly #reader: RecordingReader;
  readonly #answers: Answers;
  readonly #interactive: boolean;
  #drives: ReplayedDrives;
  #machine: Machine | null = null;
  /** Bytes that the guest has printed on this way through its run, and the most on any. */
  #printed = 0;
  #shown = 0;

  override readonly trip: Trip | null;

  constructor(reader: RecordingReader, interactive: boolean, trip: Trip | null) {
    super();
    this.trip = trip;
    this.#reader = reader;
    this.#answers = new Answers(reader);
    this.#answers.onPlaced = () => this.onPlaced();
    this.#drives = new ReplayedDrives(this.#answers);
    this.#interactive = interactive;
  }

  /** The machine has stopped at the event: what its end brings is no part of the run. */
  onStopped: () => void = () => {};
  /** Stops the machine at its next chance. */
  reach(): void {
    this.reached = true;
    this.#machine?.stop("requested");
  }

  override cut(): void {
    this.reached = true;
  }

  override timeline(parts: Omit<TimelineParts, "replay">): Timeline {
    return new Timeline({ ...parts, replay: this });
  }

  override get stopped(): boolean {
    return this.reached;
  }

  override openBlockFile(_path: string, blockBytes: 512 | 4096): BlockStore & { close(): void } {
    return this.#drives.open(blockBytes);
  }

  override pace(): ReplayedPace {
    return new ReplayedPace(this.#answers, this.#interactive, runOf(this), (change) => this.onChange(change));
  }

  override serveAtTraps(machine: Machine): void {
    const pace = this.pace();
    let taking = false;
    machine.addService({
      get flagged() {
        return !taking && pace.due;
      },
      service: () => {
        taking = true;
        pace.take();
        taking = false;
      },
    });
  }

  override calls(process: SystemCalls): SystemCalls {
    this.#log = new CallLog(process);
    return this.#log;
  }

  get log(): CallLog {
    return this.#log!;
  }

  override machine(machine: Machine): void {
    this.#machine = machine;
    const print = machine.onConsole;
    // What has been printed before is not printed again.
    machine.onConsole = (bytes) => {
      this.#printed += bytes.length;
      const fresh = this.#printed - this.#shown;
      if (fresh <= 0) return;
      this.#shown = this.#printed;
      print(bytes.subarray(Math.max(0, bytes.length - fresh)));
    };
    this.listen(machine);
  }

  mark(): ReplayMark {
    return { answers: this.#answers.mark(), console: this.console.copy(), printed: this.#printed };
  }

  return({ answers, console, printed }: ReplayMark): void {
    this.#answers.return(answers);
    this.console = console.copy();
    this.#printed = printed;
  }

  /** The recording from its beginning. */
  restart(): void {
    this.#reader.seek(0);
    this.#reader.records = 0;
    this.#answers.take();
    this.#drives = new ReplayedDrives(this.#answers);
    this.console = createHash("sha256");
    this.#printed = 0;
  }

  /** The run is over, or was cut. */
  onEnd: () => void = () => {};

  override end(kind: string, virtualNs: number, instructions: number): void {
    this.onEnd();
    if (this.#answers.difference !== null) throw this.#answers.difference;
    if (this.reached) {
      this.onStopped();
      return;
    }
    const now = this.result(kind, virtualNs, instructions);
    const parsed = resultShape.safeParse(this.#reader.trailer.result);
    if (!parsed.success) return;
    const then = parsed.data;
    for (const what of ["kind", "virtualNs", "instructions", "console"] as const) {
      if (now[what] !== then[what])
        throw new ReplayDifference(`the run's ${what} is ${now[what]}, the recorded one ${then[what]}`);
    }
    if (!this.#answers.done) throw new ReplayDifference("the recording goes on after the end of its run");
  }
}

/** The run of a source, which is told of it later than its pace is made. */
function runOf(source: LiveSource): PacedRun {
  return { place: () => source.run.place(), settle: () => source.run.settle() };
}
