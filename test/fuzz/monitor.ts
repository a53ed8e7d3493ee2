// `nestbox fuzz monitor`: clients of the monitor's socket that mean harm, at a live guest with a device behind an IOMMU: commands in words and JSON with arguments
// of their own choosing, lines that are none, cut and joined anywhere, from several at once. Nothing is thrown; every line is answered once, in JSON, by
// the time the machine stands; and when the run ends the host holds nothing.

import { SeededRandom } from "../../host/base/seeded-random.ts";
import type { Count, Finding, Fuzzer } from "../../vmm/cli/fuzzer.ts";
import { KernelWorld } from "../../vmm/cli/kernel-world.ts";
import { type MonitorClients, MonitorSessions } from "../../vmm/cli/monitor-sessions.ts";
import { RunningVm } from "../../vmm/cli/monitored-vm.ts";
import type { FromRemote } from "../../vmm/cli/remote-link.ts";
import { RunShell } from "../../vmm/cli/run-shell.ts";
import { LiveSource } from "../../vmm/cli/run-source.ts";
import { COMMANDS } from "../../vmm/monitor/command-shapes.ts";
import { Monitor } from "../../vmm/monitor/monitor.ts";
import { RunControl } from "../../vmm/monitor/run-control.ts";
import { parseKernelImage } from "../../vmm/platform/kernel-image.ts";
import { rv64Guest } from "../vmm/gdb/guests.ts";
import { coreModule } from "../vmm/vcpu/riscv64/core-module.ts";

const SLICE = 5_000;
const DEVICES = ["00:02.0", "00:03.0", "0000:00:02.0", "0000:00:01.0", "00:1f.7", "ff:1f.7", "", "x", "0x10"];
const ASSIGNMENTS = [
  "0000:00:02.0@00:03.0",
  "0000:00:01.0@00:02.0",
  "0000:00:01.0@00:04.0",
  "nothing@00:05.0",
  "@",
  "0000:00:02.0@00:03.0/viommu0",
];
const RULES = [
  "ioctl:IOMMU_HWPT_ALLOC@1=ENOMEM",
  "ioctl:*=EIO",
  "allocation:*@3",
  "event:1",
  "nonsense",
  "ioctl:IOMMU_IOAS_MAP@%2=EINVAL",
];

/** What clients send, and what they get. */
class Clients implements MonitorClients {
  readonly #coming: FromRemote[] = [];
  readonly #text = new Map<number, string>();
  readonly ended = new Set<number>();

  open(client: number): void {
    this.#text.set(client, "");
    this.#coming.push({ kind: "open", client });
  }

  bytes(client: number, bytes: Uint8Array): void {
    if (!this.ended.has(client)) this.#coming.push({ kind: "bytes", client, bytes });
  }

  go(client: number): void {
    this.ended.add(client);
    this.#coming.push({ kind: "closed", client });
  }

  take(): FromRemote | undefined {
    return this.#coming.shift();
  }

  send(client: number, bytes: Uint8Array): void {
    this.#text.set(client, this.#text.get(client)! + Buffer.from(bytes).toString());
  }

  end(client: number): void {
    this.ended.add(client);
  }

  async close(): Promise<void> {}

  /** What a client has got since. */
  lines(client: number): unknown[] {
    const text = this.#text.get(client)!;
    this.#text.set(client, "");
    if (text !== "" && !text.endsWith("\n")) throw new Error("half a line is sent");
    return text
      .split("\n")
      .slice(0, -1)
      .map((line) => JSON.parse(line) as unknown);
  }
}

function argument(random: SeededRandom, name: string): unknown {
  const any = [
    0,
    1,
    -1,
    1.5,
    2 ** 53,
    "1",
    "0x1000",
    "0xffffffffffffffff",
    "0x1ffffffffffffffff",
    "",
    null,
    true,
    [],
    {},
    ["a", 1],
    "--why",
  ];
  if (random.below(4) === 0) return any[random.below(any.length)];
  switch (name) {
    case "n":
      return 1 + random.below(2000);
    case "event":
    case "why":
    case "write":
      return true;
    case "type":
      return ["mmio", "dma", "fault", "command", "ioctl", "nothing"][random.below(6)];
    case "path":
      return ["vm", "vm/pci", "host", "vm/viommus/viommu0", "/", "..", "vm//"][random.below(7)];
    case "device":
      return DEVICES[random.below(DEVICES.length)];
    case "iova":
      return `0x${(random.below(2 ** 32) * 4096).toString(16)}`;
    case "pasid":
      return random.below(2 ** 21);
    case "assignment":
      return ASSIGNMENTS[random.below(ASSIGNMENTS.length)];
    case "rule":
      return Array.from({ length: random.below(3) }, () => RULES[random.below(RULES.length)]);
    default:
      return COMMANDS[random.below(COMMANDS.length)]!.name;
  }
}

/** A line that is a request, or nearly. */
export function line(random: SeededRandom): string {
  const command = COMMANDS[random.below(COMMANDS.length)]!;
  if (command.name === "quit" && random.below(8) !== 0) return "status";
  const given = [...command.operands, ...command.options].filter(() => random.below(4) !== 0);
  if (random.below(2) === 0) {
    const entries = given.map(({ name }) => [name, argument(random, name)] as const);
    const id = [{}, { id: random.below(100) }, { id: "a" }, { id: null }, { id: {} }][random.below(5)]!;
    return JSON.stringify({ ...id, command: command.name, ...Object.fromEntries(entries) });
  }
  const words: string[] = [command.name];
  for (const shape of given) {
    const value = argument(random, shape.name);
    const texts = (Array.isArray(value) ? value : [value]).map((one) => String(one));
    const isOption = command.options.some((option) => option.name === shape.name);
    const isFlag = isOption && "type" in shape && shape.type === "flag";
    if (isOption) words.push(`--${shape.name}${random.below(8) === 0 ? "=" : ""}`);
    if (!isFlag || random.below(8) === 0)
      words.push(...texts.map((text) => (random.below(4) === 0 ? `"${text}"` : text)));
  }
  return words.join(" ");
}

/** A line whose bytes are anybody's, without a line's end. */
function noise(random: SeededRandom): Buffer {
  const bytes = random.below(2) === 0 ? Buffer.from(random.bytes(random.below(80))) : Buffer.from(line(random));
  if (bytes.length > 0) bytes[random.below(bytes.length)] = random.below(256);
  return Buffer.from(bytes.filter((byte) => byte !== 0x0a));
}

class Run {
  readonly shell = new RunShell({ report: "none", console: "/dev/null", seed: 1 } as never);
  readonly world: KernelWorld;
  readonly control: RunControl;
  readonly clients = new Clients();
  readonly sessions: MonitorSessions;
  quitting = false;

  constructor(seed: number) {
    const { file } = rv64Guest();
    const options = {
      assign: ["0000:00:01.0@00:02.0"],
      viommu: "riscv",
      seed,
      append: "",
      cpus: 1 + (seed % 2),
      report: "none",
    };
    const plan = {
      ...{ kernelFile: "guest", kernel: parseKernelImage(file), initrd: null, dtb: null, core: coreModule() },
      ...{ memoryBytes: 4 * 2 ** 20, drives: [], slice: SLICE, options: options as never },
    };
    this.world = KernelWorld.begin(plan, this.shell, new LiveSource());
    const { machine, run, parts } = this.world;
    const progress = () => this.world.instructions;
    this.control = new RunControl(
      { trace: this.shell.trace, progress, interrupt: () => machine.pause() },
      seed % 3 === 0,
    );
    const quit = (): void => {
      this.quitting = true;
    };
    const vm = new RunningVm({
      run,
      vm: parts,
      position: () => ({ instructions: progress() }),
      quit,
      changes: () => {},
    });
    this.sessions = new MonitorSessions(this.clients, new Monitor(vm, this.control));
  }

  run(slices: number): void {
    const { machine } = this.world;
    for (let n = 0; n < slices && !this.control.paused; n++) {
      const stop = machine.run(this.control.budget);
      this.control.arrived();
      if (stop.kind === "idle" && Number.isFinite(stop.until)) machine.skipTo(stop.until);
    }
  }

  /** The host must hold nothing behind it. */
  close(): void {
    const { run, assignment } = this.world;
    run.inject([]);
    const counters = run.counters(assignment);
    run.close(assignment);
    this.shell.finish({ status: 0, detail: "" }, counters);
  }
}

async function round(seed: number, count: Count): Promise<Finding | null> {
  const random = new SeededRandom(seed);
  const run = new Run(seed);
  const { clients, sessions, control } = run;
  const asked = new Map<number, number>();
  const answered = new Map<number, number>();
  const clientsThere = 1 + random.below(4);
  for (let client = 1; client <= clientsThere; client++) {
    clients.open(client);
    asked.set(client, 0);
    answered.set(client, 0);
  }
  sessions.serve();
  for (let client = 1; client <= clientsThere; client++) {
    const first = clients.lines(client);
    if (JSON.stringify(first) !== '[{"nestbox-monitor":1}]')
      return { problem: `it begins with ${JSON.stringify(first)}` };
  }
  const collect = (): string | null => {
    for (let client = 1; client <= clientsThere; client++) {
      for (const got of clients.lines(client)) {
        const { ok, error } = got as { ok?: unknown; error?: unknown };
        if (typeof ok !== "boolean") return `${JSON.stringify(got)} is no answer`;
        if (!ok && (typeof error !== "string" || error === "" || error.includes("\n")))
          return `${JSON.stringify(error)} is no line`;
        count(ok ? "done" : "refused", 1);
        answered.set(client, answered.get(client)! + 1);
      }
    }
    return null;
  };
  for (let step = 0; step < 40 && !run.quitting; step++) {
    const client = 1 + random.below(clientsThere);
    const batch: Buffer[] = [];
    for (let n = random.below(4); n >= 0; n--) {
      const one = random.below(6) === 0 ? noise(random) : Buffer.from(line(random));
      if (one.toString().trim() !== "" && !clients.ended.has(client)) asked.set(client, asked.get(client)! + 1);
      batch.push(one, Buffer.from("\n"));
    }
    const bytes = Buffer.concat(batch);
    const cut = random.below(bytes.length + 1);
    clients.bytes(client, bytes.subarray(0, cut));
    if (random.below(2) === 0) sessions.serve();
    clients.bytes(client, bytes.subarray(cut));
    sessions.serve();
    run.run(1 + random.below(3));
    const wrong = collect();
    if (wrong !== null) return { problem: wrong };
  }
  // Whoever still waits is answered once the machine stands.
  if (!control.paused) control.pause();
  const wrong = collect();
  if (wrong !== null) return { problem: wrong };
  for (const [client, wanted] of asked) {
    const got = answered.get(client)!;
    if (got !== wanted && !clients.ended.has(client))
      return { problem: `client ${client} has ${got} answers to ${wanted} lines` };
  }
  const [tooLong] = asked.keys();
  clients.bytes(tooLong!, Buffer.alloc(70_000, "a"));
  sessions.serve();
  if (!clients.ended.has(tooLong!)) return { problem: "a line without end is not ended" };
  if (clientsThere > 1) clients.go(clientsThere);
  await sessions.close({ status: 0, detail: "" });
  run.close();
  return null;
}

export const fuzzer: Fuzzer = {
  about:
    "hostile clients of the monitor at a live guest: every line answered once in JSON, nothing thrown, nothing left on the host",
  round,
};
