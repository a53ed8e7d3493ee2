// `nestbox fuzz machine-recording`: recordings of a machine's run that are not as they were written, as `nestbox fuzz recording` has those of a host's: bytes changed
// or cut off are refused; headers, places, input, drives and a monitor's changes of somebody else's choosing are replayed to some end, also there and back, each
// a line; nothing else may be thrown, and nothing may go on for ever.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ReplayDifference } from "../../host/adapters/recording/expected-records.ts";
import { RecordingError } from "../../host/adapters/recording/recording-format.ts";
import { RecordingReader } from "../../host/adapters/recording/recording-reader.ts";
import { SeededRandom } from "../../host/base/seeded-random.ts";
import { bootKernel } from "../../vmm/cli/boot-kernel.ts";
import { UsageError } from "../../vmm/cli/exit-codes.ts";
import type { Count, Finding, Fuzzer } from "../../vmm/cli/fuzzer.ts";
import type { KernelPace, OutsideEnd } from "../../vmm/cli/kernel-pace.ts";
import { machineRun, RecordedSource, ReplayedSource } from "../../vmm/cli/record-machine.ts";
import type { ReplayedPace } from "../../vmm/cli/recorded-pace.ts";
import { UART_BASE } from "../../vmm/memory-map.ts";
import { putTogether, takeApart } from "../host/adapters/recording/container.ts";
import { Program, S0 } from "../vmm/rv64-program.ts";
import { addi } from "../vmm/vcpu/riscv64/encode.ts";
import { changeRecords } from "./recording.ts";

const LOOK = 5000;
const MOST_LOOKS = 200;

const folder = mkdtempSync(join(tmpdir(), "nestbox-fuzz-machine-"));
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
const QUIET = { report: "none" as const, console: "/dev/null", wallLimit: Number.POSITIVE_INFINITY };

/** Somebody who types, and whose monitor changes the machine, at looks that come every 5000 instructions. */
class Somebody implements KernelPace {
  readonly interactive = false;
  readonly budget = LOOK;
  readonly moves = 0;
  isIdle = false;
  onBytes: (bytes: Uint8Array) => void = () => {};
  change: (change: object) => void = () => {};
  #looks = 0;

  async between(): Promise<OutsideEnd | null> {
    this.#looks++;
    if (this.#looks % 3 === 0) this.onBytes(Buffer.from(`key ${this.#looks}\n`));
    if (this.#looks === 4) this.change({ command: "device-add", assignment: "0000:00:01.0@00:03.0" });
    if (this.#looks === 6) this.change({ command: "inject", rule: ["device:0000:00:01.0=slow/700"] });
    if (this.#looks === 9) this.change({ command: "device-remove", device: "00:03.0" });
    return this.#looks === 15 ? { kind: "quit" } : null;
  }

  async idle(_now: number, until: number): Promise<number> {
    return until;
  }
}

let original: Buffer | null = null;
async function recorded(): Promise<Buffer> {
  const program = new Program().print(UART_BASE, "on\n");
  const loop = program.here;
  program.emit(addi(S0, S0, 1)).jump(loop);
  const kernel = join(folder, "kernel");
  writeFileSync(kernel, program.imageFile);
  const path = join(folder, "run");
  const options = {
    ...{
      ...QUIET,
      assign: [],
      seed: 1,
      memory: 2 ** 22,
      append: "",
      cpus: 2,
      nvme: [join(folder, "disk")],
      reboot: true,
    },
    ...{ viommu: "riscv" as const, timeLimit: 1e9 },
  };
  writeFileSync(join(folder, "disk"), Buffer.alloc(1 << 16));
  const somebody = new Somebody();
  class Attended extends RecordedSource {
    override pace(): KernelPace {
      somebody.change = (change) => {
        this.changes(JSON.stringify(change));
        this.onChange(JSON.stringify(change));
      };
      return super.pace(() => somebody);
    }
  }
  await bootKernel(kernel, options, (_shell, made) => new Attended(path, made, () => {}));
  return readFileSync(path);
}

/** A recording that has been tampered with. */
function mutated(bytes: Buffer, random: SeededRandom): { readonly bytes: Buffer; readonly what: string } {
  const kind = random.below(8);
  if (kind === 0) {
    const changed = Buffer.from(bytes);
    changed[random.below(changed.length)]! ^= 1 << random.below(8);
    return { bytes: changed, what: "changed" };
  }
  if (kind === 1) return { bytes: bytes.subarray(0, random.below(bytes.length)), what: "cut short" };
  const parts = takeApart(bytes);
  if (kind === 2)
    return { bytes: putTogether({ ...parts, header: otherHeader(parts.header, random) }), what: "another header" };
  let records: Buffer = Buffer.concat(parts.chunks);
  for (let n = random.below(3); n >= 0; n--) records = changeRecords(records, random);
  return { bytes: putTogether({ ...parts, chunks: records.length > 0 ? [records] : [] }), what: "other records" };
}

function otherHeader(header: Buffer, random: SeededRandom): Buffer {
  const document = JSON.parse(header.toString());
  const values = [
    null,
    -1,
    0,
    3,
    1e300,
    "",
    "x",
    [],
    ["x"],
    {},
    true,
    0.5,
    "none",
    "vtd",
    2 ** 21,
    { file: "/etc/passwd" },
  ];
  const { options } = document.run;
  const target = [document, document.run, options, options, options, options.host, document.run.images[0]][
    random.below(7)
  ];
  const names = Object.keys(target);
  target[names[random.below(names.length)]!] = values[random.below(values.length)];
  return Buffer.from(JSON.stringify(document));
}

class Endless extends Error {}

/** How a replay ends, a word; what is none of them is thrown. */
async function ending(bytes: Buffer, random: SeededRandom): Promise<string> {
  try {
    const reader = RecordingReader.of("recording", bytes);
    const { options, files } = machineRun(reader, []);
    const kernel = files.get("kernel");
    if (kernel === undefined) return "refused";
    // There, and half of the time back.
    const trip =
      random.below(2) === 0
        ? null
        : { to: 1 + random.below(90), ...(random.below(2) === 0 ? {} : { back: random.below(40) }) };
    let looks = 0;
    class Limited extends ReplayedSource {
      override pace(): ReplayedPace {
        const pace = super.pace();
        const between = pace.between.bind(pace);
        pace.between = () => {
          // A clock that stands for ever is somebody else's choice, too.
          if (++looks > MOST_LOOKS) throw new Endless();
          return between();
        };
        return pace;
      }
    }
    const { append = "", cpus = 1, nvme = [], reboot = true, timeLimit = 1e15 } = options;
    const given = { ...options, ...QUIET, append, cpus, nvme, reboot, timeLimit: Math.min(timeLimit, 2e6) };
    await bootKernel(kernel, given, () => new Limited(reader, options.interactive === true, trip));
    return "replayed";
  } catch (error) {
    if (error instanceof Endless) return "goes on";
    const known = error instanceof RecordingError || error instanceof ReplayDifference || error instanceof UsageError;
    if (!known) throw error;
    if (error.message === "" || /\n/.test(error.message)) throw new Error(`not one line: ${error.message}`);
    return error instanceof ReplayDifference ? "differs" : "refused";
  }
}

async function round(seed: number, count: Count): Promise<Finding | null> {
  original ??= await recorded();
  const random = new SeededRandom(seed);
  const { bytes, what } = seed === 0 ? { bytes: original, what: "as it was" } : mutated(original, random);
  const end = await ending(bytes, random);
  count(`${what}: ${end}`, 1);
  if ((what === "changed" || what === "cut short") && end !== "refused")
    return { problem: `a recording that is ${what} was ${end}` };
  if (what === "as it was" && end !== "replayed") return { problem: `the recording that all begins from is ${end}` };
  return null;
}

export const fuzzer: Fuzzer = {
  about:
    "recordings of machines, kernels with two CPUs, with other bytes, places, input, changes and headers than were written: each is refused, differs or is replayed, in a line",
  round,
};
