// `npm run check:debian`: the demo with everything checked that can be: what the guest's kernel says of its drivers, the verified checksum, the
// run's report; then a session on four CPUs, whose traces must be the same for the same seed, and a run that is saved and taken back.
// `check.js state [WORDS]` does that last part alone.

import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Command, Option } from "commander";
import { SeededRandom } from "../../host/base/seeded-random.ts";
import { bootFixture, nestbox, summaryOf } from "./boot-fixture.ts";
import { CORRUPTED_ENTRY, DRIVE, EVENT_ON_CONSOLE, MESSAGE_EVENT } from "./corrupted-entry.ts";
import { nestingReport } from "./nesting-report.ts";
import {
  BOOTED_ARCHITECTURES,
  type BootedArchitecture,
  type DebianFixture,
  debianFixture,
  MissingHere,
} from "./recipe.ts";
import { savedRun } from "./saved-run.ts";
import { withoutNode } from "./without-node.ts";

const failures: string[] = [];
function check(holds: boolean, what: string): void {
  console.log(`${holds ? "ok    " : "FAILED"} ${what}`);
  if (!holds) failures.push(what);
}

type Wanted = readonly (readonly [RegExp, string])[];

/** What is expected of a port's kernel beside what all have. */
interface Port {
  readonly wanted: Wanted;
  /** Commands that the guest's driver must have used. */
  readonly commands: readonly string[];
}

const PORTS: Readonly<Record<BootedArchitecture, Port>> = {
  riscv64: {
    wanted: [
      [/riscv,iommu 3010000\.iommu: using MSIs/, "the guest's riscv-iommu driver is up, with MSIs"],
      [/nestbox-demo: iommus: riscv-iommu@3010000/, "sysfs shows the IOMMU"],
    ],
    commands: ["IODIR.INVAL_DDT", "IOTINVAL.VMA", "IOFENCE.C"],
  },
  arm64: {
    wanted: [
      [/arm-smmu-v3 3010000\.iommu: oas \d+-bit/, "the guest's arm-smmu-v3 driver is up"],
      [/iommu: Default domain type: Translated/, "the kernel translates DMA by default"],
      [/iommu: DMA domain TLB invalidation policy: strict mode/, "and invalidates strictly"],
      [/nestbox-demo: group \d+ type DMA devices .*0000:00:10\.0/, "the drive's group is of type DMA"],
      [/nestbox-demo: iommus: smmu3\.0x0*3010000/, "sysfs shows the SMMU"],
    ],
    commands: ["CMD_CFGI_STE", "CMD_CFGI_CD", "CMD_TLBI_NH_VA", "CMD_SYNC"],
  },
};

const VERIFIED = /nestbox-demo: checksum verified: [0-9a-f]{64}/;

/** Lines that the guest must print, and what each shows. */
const WANTED: Wanted = [
  [/pci 0000:00:10\.0: Adding to iommu group \d+/, "the drive is in an IOMMU group"],
  [/nestbox-demo: group \d+ type \S+ devices .*0000:00:10\.0/, "sysfs shows the drive in its group"],
  [/nvme nvme0: pci function 0000:00:10\.0/, "the guest's nvme driver has the drive"],
  [/EXT4-fs \(nvme0n1p1\): mounted filesystem/, "a file system on the drive's partition is mounted"],
  [VERIFIED, "the file's checksum is verified after dropping caches"],
];

async function checkDemo(
  fixture: DebianFixture,
  { wanted, commands: used }: Port,
  more: readonly string[] = [],
): Promise<Record<string, unknown>> {
  const run = await bootFixture({ fixture, words: "nestbox.script", more: ["--report", "json", ...more], echo: true });
  const summary = summaryOf(run);
  check(run.status === 0, `the demo ends with exit status 0 (${run.status})`);
  for (const [pattern, what] of [...WANTED, ...wanted])
    check(
      run.lines.some(({ text }) => pattern.test(text)),
      what,
    );
  check(!run.lines.some(({ text }) => /FAILED|Oops|BUG:|WARNING:/.test(text)), "the guest complains of nothing");
  const dma = (summary.dma ?? {}) as Record<string, number>;
  const commands = (summary.commands ?? {}) as Record<string, number>;
  check(summary.result === "pass" && summary.detail === "powered off", "the report says that the guest powered off");
  check(summary.faults === 0, "no fault reached the guest");
  for (const name of used) check((commands[name] ?? 0) > 0, `the guest's ${name} was trapped`);
  // The file alone is 4 MiB, written once and read once.
  check((dma.bytes ?? 0) >= 8 * 2 ** 20 && dma.aborted === 0, `DMA moved the data, none aborted (${dma.bytes} bytes)`);
  check((dma.messages ?? 0) > 0, `the drive's interrupts came as MSIs (${dma.messages})`);
  return summary;
}

/** This kernel has no IOMMU_DMA: its drive stays in an identity domain. */
function checkIdentity(summary: Record<string, unknown>): void {
  check(Number(summary.bypassDomains) >= 1, `bypass contexts were installed (${summary.bypassDomains})`);
}

const READS = 1000;

/** Every DMA of the drive is nested, and each direct read costs the guest one TLBI_NH_VA, which reaches the host's kernel. */
async function checkNesting(fixture: DebianFixture, summary: Record<string, unknown>): Promise<void> {
  check(summary.nestedDomains === 1, `one nested stage 1 for the one assigned function (${summary.nestedDomains})`);
  check(summary.bypassDomains === 0, `nothing bypassed (${summary.bypassDomains})`);
  const more = ["--report", "json"];
  const run = await bootFixture({ fixture, words: `nestbox.script nestbox.reads=${READS}`, more });
  const after = summaryOf(run);
  const invalidations = (of: Record<string, unknown>): number =>
    (of.commands as Record<string, number> | undefined)?.CMD_TLBI_NH_VA ?? 0;
  const forwarded = (of: Record<string, unknown>): number =>
    (of.ioctls as Record<string, number> | undefined)?.IOMMU_HWPT_INVALIDATE ?? 0;
  const spent = invalidations(after) - invalidations(summary);
  const calls = forwarded(after) - forwarded(summary);
  const within = (count: number): boolean => Math.abs(count - READS) <= READS / 100;
  check(run.status === 0 && within(spent), `${READS} direct reads cost ${spent} TLBI_NH_VA`);
  check(within(calls), `and ${calls} calls of HWPT_INVALIDATE`);
}

const SESSION_CPUS = 4;
const LAST_CPU = SESSION_CPUS - 1;
/** What a session on these CPUs prints; the sum is that of 1 to 2000. */
const SESSION: Wanted = [
  [new RegExp(`^nestbox-session: ${SESSION_CPUS} CPUs, online 0-${LAST_CPU}$`), "all CPUs are online"],
  ...Array.from({ length: SESSION_CPUS }, (_, cpu) => {
    const line = `CPU ${cpu} adds to 2001000`;
    return [new RegExp(`^nestbox-session: ${line}$`), `held to its CPU, each adds for itself: ${line}`] as const;
  }),
  [/^nestbox-session: the pipe is in order$/, "20,000 lines go through a pipe of all CPUs"],
  [/^nestbox-session: counted 40 of 40$/, "a counter behind a lock misses nothing"],
  [new RegExp(`^nestbox-session: online 0-${LAST_CPU - 1}$`), "a CPU is switched off"],
  [/^nestbox-session: IPI\d+ +([1-9]\d* +){4}/, "every CPU has been sent interrupts by others"],
];

/** A shell session on four CPUs, three times: twice with one seed. */
async function checkSession(fixture: DebianFixture): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "nestbox-trace-"));
  const boot = async (seed: string): Promise<{ readonly trace: string; readonly lines: readonly string[] }> => {
    const trace = join(folder, "trace.jsonl");
    const more = ["--trace", trace, "--seed", seed];
    const run = await bootFixture({ fixture, words: "nestbox.session", cpus: `${SESSION_CPUS}`, more });
    check(run.status === 0, `a session on ${SESSION_CPUS} CPUs with seed ${seed} powers off (${run.status})`);
    const lines = run.lines.map(({ text }) => text);
    return { trace: createHash("sha256").update(readFileSync(trace)).digest("hex"), lines };
  };
  const [first, second, other] = [await boot("7"), await boot("7"), await boot("8")];
  rmSync(folder, { recursive: true, force: true });
  for (const [pattern, what] of SESSION)
    check(
      first.lines.some((line) => pattern.test(line)),
      what,
    );
  const again = first.lines.filter((line) => line === `nestbox-session: online 0-${LAST_CPU}`);
  check(again.length === 1, "and comes again");
  check(first.trace === second.trace, `the same seed gives the same trace (${first.trace})`);
  check(first.trace !== other.trace, "another seed gives another trace");
}

/** Two harts, the drive in use: saved and taken back at random instants, and never. */
function checkState(fixture: DebianFixture, words: string): void {
  const options = { fixture, words, cpus: 2, farthest: 100, seed: 1 };
  const plain = savedRun({ ...options, saves: new Set() });
  check(plain.poweredOff, `a machine in this process powers off (${plain.slices} slices)`);
  const random = new SeededRandom(1);
  const saves = new Set(Array.from({ length: 4 }, () => random.below(plain.slices)));
  const saved = savedRun({ ...options, saves });
  check(saved.taken >= 2 && saved.rewound >= 1, `it was taken back ${saved.taken} times, ${saved.rewound} over events`);
  check(saved.trace === plain.trace, `saved and taken back, its trace is the same (${saved.trace})`);
  check(saved.ram === plain.ram && saved.console === plain.console, "and so are RAM and console");
}

async function checkArm64(fixture: DebianFixture): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "nestbox-trace-"));
  const trace = join(folder, "trace.jsonl");
  const summary = await checkDemo(fixture, PORTS.arm64, ["--trace", trace]);
  const { dmas, refused, beforeNesting, domains } = await nestingReport(trace, DRIVE.host, DRIVE.guestId);
  checkWalks(trace);
  rmSync(folder, { recursive: true, force: true });
  const counted = (summary.dma ?? {}) as Record<string, number>;
  const all = (counted.transfers ?? 0) + (counted.messages ?? 0);
  check(
    dmas === all && dmas > 0,
    `the host's hardware saw all DMAs of the drive, its messages too (${dmas} of ${all})`,
  );
  check(refused === 0 && beforeNesting === 0, `all of them nested (${beforeNesting} before, ${refused} refused)`);
  check(domains.includes("nested"), `the drive was on ${domains.join(", ")}`);
  await checkNesting(fixture, summary);
  await checkCorruptedEntry(fixture);
  await checkWithoutWindow(fixture);
}

/**
 * A guest that is not told of the host's MSI window does not map it: its drive's messages fault in its own stage 1, it gets no interrupt, and its
 * kernel says both. Its driver polls at each timeout, 60 s of virtual time for the first.
 */
async function checkWithoutWindow(fixture: DebianFixture): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "nestbox-tree-"));
  const own = join(folder, "own.dtb");
  const other = join(folder, "other.dtb");
  const words = "nestbox.script";
  const dumped = await bootFixture({ fixture, words, more: ["--dump-dtb", own] });
  check(dumped.status === 0, `the machine's device tree is written down (${dumped.status})`);
  writeFileSync(other, withoutNode(readFileSync(own), "reserved-memory"));
  const more = ["--report", "json", "--dtb", other, "--time-limit", "70s"];
  const run = await bootFixture({ fixture, words, more });
  rmSync(folder, { recursive: true, force: true });
  const { dma } = summaryOf(run) as { dma?: { messages?: number; aborted?: number } };
  const says = (pattern: RegExp): boolean => run.lines.some(({ text }) => pattern.test(text));
  check(
    says(MESSAGE_EVENT),
    "without iommu-addresses in its device tree the guest's kernel prints F_TRANSLATION at 0x8000000",
  );
  check(says(/nvme nvme0: I\/O tag .* timeout, completion polled/), "and its driver misses its interrupts");
  check(
    dma?.messages === 0 && (dma.aborted ?? 0) > 0,
    `no message went through (${dma?.messages}, ${dma?.aborted} aborted)`,
  );
}

/** `nestbox walk --why` shows DMAs of every sort, by both stages, to where the trace says that they went. */
function checkWalks(trace: string): void {
  const lines = readFileSync(trace, "utf8").split("\n");
  const dmas = lines
    .filter((line) => line.includes('"type":"dma"') && line.includes(`"device":"${DRIVE.host}"`))
    .map((line) => JSON.parse(line) as { seq: number; length: number; write: boolean; result: string; spa: string });
  const sorts = [
    ["a command fetched from a queue", dmas.find(({ length, write }) => length === 64 && !write)],
    ["a completion written to a queue", dmas.find(({ length, write }) => length === 16 && write)],
    ["data read from the drive", dmas.findLast(({ length, write }) => length === 4096 && write)],
    ["data written to the drive", dmas.findLast(({ length, write }) => length === 4096 && !write)],
    ["a message", dmas.findLast(({ result }) => result === "msi")],
  ] as const;
  for (const [what, dma] of sorts) {
    const shown = dma === undefined ? "" : walkText(trace, dma.seq);
    const nested =
      /stage 1 level 3/.test(shown) && /stage 2 level [23]/.test(shown) && shown.includes("nested, guest's STE");
    check(
      nested && shown.includes(`-> SPA ${dma!.spa}\n`),
      `walk --why shows both stages of ${what} (event ${dma?.seq})`,
    );
  }
}

function walkText(trace: string, seq: number): string {
  const args = [nestbox, "walk", "--trace", trace, "--event", `${seq}`, "--why", "--width", "160"];
  return spawnSync(process.execPath, args, { encoding: "utf8" }).stdout;
}

/** An entry of the guest's stage 1 with its access flag gone: the guest's own kernel says so on its console, its driver tries again. */
async function checkCorruptedEntry(fixture: DebianFixture): Promise<void> {
  const more = ["--report", "json", "--inject", CORRUPTED_ENTRY];
  const run = await bootFixture({ fixture, words: "nestbox.script", more });
  const events = run.lines.flatMap(({ text }) => EVENT_ON_CONSOLE.exec(text) ?? []);
  for (const event of events) console.log(`       ${event}`);
  check(
    events.length === 1,
    `with ${CORRUPTED_ENTRY} the guest's kernel prints an event of its SMMU (${events.length})`,
  );
  const { faults, dma } = summaryOf(run) as { faults?: number; dma?: { aborted?: number } };
  check(
    faults === 1 && dma?.aborted === 1,
    `it is the one event, of the one DMA that was aborted (${faults}, ${dma?.aborted})`,
  );
  const verified = run.lines.some(({ text }) => VERIFIED.test(text));
  check(run.status === 0 && verified, "the guest's driver tries again: the checksum is verified all the same");
}

async function checkAll(arch: BootedArchitecture, part: string | undefined, words: string): Promise<void> {
  const fixture = debianFixture({ architecture: arch, log: (line) => console.error(line) });
  if (part === "state") {
    checkState(fixture, words);
    return;
  }
  if (arch === "arm64") await checkArm64(fixture);
  else checkIdentity(await checkDemo(fixture, PORTS.riscv64));
  await checkSession(fixture);
  // a machine in this process is built for the other port only
  if (arch === "riscv64") checkState(fixture, "nestbox.script");
}

await new Command("check:debian")
  .description("boot the Debian fixture with everything checked that can be")
  .addOption(new Option("--arch <name>", "Debian port").choices(BOOTED_ARCHITECTURES).default("riscv64"))
  .argument("[part]", "state: only the run that is saved and taken back")
  .argument("[words]", "of that run, for init.sh", "nestbox.script")
  .action(async (part: string | undefined, words: string, options: { arch: BootedArchitecture }) => {
    try {
      await checkAll(options.arch, part, words);
    } catch (error) {
      if (!(error instanceof MissingHere)) throw error;
      console.error(`check:debian: ${error.message}`);
      process.exitCode = 77;
      return;
    }
    if (failures.length > 0) {
      console.error(`check:debian: ${failures.length} failed: ${failures.join("; ")}`);
      process.exitCode = 1;
    }
  })
  .parseAsync();
