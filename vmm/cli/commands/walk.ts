// `nestbox walk`: a translation as a grid, from a recorded trace or from a scenario.

import { Command } from "commander";
import { walkGrid } from "../../view/walk-grid.ts";
import { walkText, whyText } from "../../view/walk-text.ts";
import { attachmentsOf, collectWalks, filledBy, type Walk } from "../../view/walks.ts";
import { EXIT_FAILED, UsageError } from "../exit-codes.ts";
import { parseAddress, wallLimitOption, wholeNumber } from "../options.ts";
import { findScenarioFiles } from "../scenario-files.ts";
import type { ProbeResult } from "../scenario-probe.ts";
import { withRunner } from "../scenario-runner.ts";
import { fitted, widthOf } from "../terminal.ts";
import { readTraceFile } from "../trace-file.ts";

interface WalkOptions {
  readonly trace?: string;
  readonly scenario?: string;
  readonly filter?: string;
  readonly at?: string;
  readonly host?: string;
  readonly device?: string;
  readonly iova?: string;
  readonly event?: number;
  readonly pasid?: number;
  readonly write?: true;
  readonly why?: true;
  readonly all?: true;
  readonly width?: number;
  readonly json?: true;
  /** ns. */
  readonly wallLimit: number;
}

export function walk(): Command {
  return new Command("walk")
    .description("show how a DMA was translated: rows stage 1, columns stage 2, every load, and where it failed")
    .option("--trace <file>", "look in this trace: --device is the host's, and all options narrow the choice")
    .option(
      "--scenario <file>",
      "run this scenario and let --device (the guest's) access --iova at its end, or --at a step",
    )
    .option(
      "--filter <text>",
      "of several scenarios in the file the first whose name contains this; default: the first",
    )
    .option("--at <step>", "step of the scenario, by its name or number (from 1)")
    .option("--host <name|file>", "host for a scenario that names none")
    .option("--device <bdf>", "device")
    .option("--iova <address>", "I/O virtual address")
    .option("--event <n>", "the one of this DMA, by its sequence number in the trace", wholeNumber)
    .option("--pasid <n>", "PASID of the request", wholeNumber)
    .option("--write", "a write")
    .option("--all", "every walk that fits, not just the last one that loaded tables")
    .option(
      "--why",
      "explain a fault in sentences, with the section of the specification; of a cached translation, the walk that it is from",
    )
    .option("--width <columns>", "width of the text; default the terminal's", wholeNumber)
    .addOption(wallLimitOption("give the scenario up after this much wall time"))
    .option("--json", "print JSON")
    .action(async (options: WalkOptions) => {
      if ((options.trace === undefined) === (options.scenario === undefined)) {
        throw new UsageError("walk: give either --trace or --scenario");
      }
      const probed = options.scenario === undefined ? null : await probe(options.scenario, options);
      const events = options.trace === undefined ? [] : readTraceFile(options.trace);
      const all = probed?.walks ?? collectWalks(events);
      const walks = probed?.walks ?? all.filter(filterOf(options));
      const chosen = options.all === true ? walks : lastTelling(walks);
      if (chosen.length === 0) {
        console.error("nestbox: walk: the trace holds no such translation");
        process.exitCode = EXIT_FAILED;
        return;
      }
      const terminal = widthOf(process.stdout);
      const width = options.width ?? (terminal === Number.POSITIVE_INFINITY ? 120 : terminal);
      const colours = process.stdout.isTTY === true && process.env.NO_COLOR === undefined;
      const attachmentAt = attachmentsOf(events);
      for (const one of chosen) {
        const grid = walkGrid(one);
        if (options.json === true) {
          console.log(JSON.stringify(grid, (_key, v: unknown) => (typeof v === "bigint" ? `0x${v.toString(16)}` : v)));
          continue;
        }
        const text = walkText(grid, { width, colours });
        console.log(options.width === undefined ? fitted(text) : text);
        const attachment = attachmentAt(one);
        if (attachment !== null) console.log(fitted(`the host had the device ${attachment}`));
        const why = options.why === true ? whyText(grid) : null;
        if (why !== null) console.log(fitted(why));
        const filled = options.why === true ? filledBy(one, all) : null;
        if (filled !== null) {
          console.log(`the translation was cached by event ${filled.seq}, ${one.time - filled.time} ns before:`);
          const earlier = walkText(walkGrid(filled), { width, colours });
          console.log(options.width === undefined ? fitted(earlier) : earlier);
        }
      }
      for (const record of probed?.records ?? []) console.log(fitted(`the guest finds: ${record}`));
    });
}

async function probe(file: string, options: WalkOptions): Promise<ProbeResult> {
  if (options.device === undefined || options.iova === undefined) {
    throw new UsageError("walk --scenario needs --device (the guest's PCI address) and --iova");
  }
  parseAddress(options.iova);
  const [only, ...more] = findScenarioFiles([file]);
  if (more.length > 0) throw new UsageError(`walk --scenario ${file}: one file, not ${more.length + 1}`);
  return await withRunner({ printTo: 2, wallLimit: options.wallLimit }, async (runner, bundles) => {
    const module = await bundles.bundle(only!);
    await runner.load(module);
    return await runner.probe(module, options);
  });
}

function filterOf(options: WalkOptions): (walk: Walk) => boolean {
  const device = options.device === undefined ? null : deviceId(options.device);
  const page = options.iova === undefined ? null : parseAddress(options.iova) >> 12n;
  return (walk) =>
    (device === null || walk.deviceId === device) &&
    (page === null || walk.iova >> 12n === page) &&
    (options.event === undefined || walk.seq === options.event) &&
    (options.pasid === undefined || walk.pasid === options.pasid) &&
    (options.write !== true || walk.write);
}

/** The last walk that faulted or loaded tables; failing that, the last. */
function lastTelling(walks: readonly Walk[]): readonly Walk[] {
  const telling = walks.findLast((one) => one.fault !== null || one.steps.length > 0) ?? walks.at(-1);
  return telling === undefined ? [] : [telling];
}

/** The host IOMMU's id of a host device: its segment above its requester id. */
function deviceId(text: string): number {
  const match = /^(?:00([0-9a-f]{2}):)?([0-9a-f]{2}):([01][0-9a-f])\.([0-7])$/i.exec(text);
  if (match === null) throw new UsageError(`--device ${text}: expected a PCI address such as 00:01.0`);
  const [segment, bus, slot] = [match[1] ?? "0", match[2]!, match[3]!].map((part) => Number.parseInt(part, 16));
  return (segment! << 16) | (bus! << 8) | (slot! << 3) | Number(match[4]);
}
