// `nestbox walk`: a translation as a grid, from a recorded trace or from a scenario.

import { Command } from "commander";
import { parseBdf } from "../../pci/host-bridge.ts";
import { walkGrid } from "../../view/walk-grid.ts";
import { walkText, whyText } from "../../view/walk-text.ts";
import { collectWalks, type Walk } from "../../view/walks.ts";
import { EXIT_FAILED, UsageError } from "../exit-codes.ts";
import { wholeNumber } from "../options.ts";
import { readTraceFile } from "../trace-file.ts";

interface WalkOptions {
  readonly trace?: string;
  readonly device?: string;
  readonly iova?: string;
  readonly pasid?: number;
  readonly write?: true;
  readonly why?: true;
  readonly all?: true;
  readonly json?: true;
}

export function walk(): Command {
  return new Command("walk")
    .description("show how a DMA was translated: rows stage 1, columns stage 2, every load, and where it failed")
    .requiredOption("--trace <file>", "trace to look in")
    .option("--device <bdf>", "only this host device")
    .option("--iova <address>", "only translations of the page of this IOVA")
    .option("--pasid <n>", "only with this PASID", wholeNumber)
    .option("--write", "only writes")
    .option("--all", "every walk that fits, not just the last one that loaded tables")
    .option("--why", "explain a fault in sentences, with the section of the specification")
    .option("--json", "print JSON")
    .action((options: WalkOptions) => {
      const walks = collectWalks(readTraceFile(options.trace!)).filter(filterOf(options));
      const chosen = options.all === true ? walks : lastTelling(walks);
      if (chosen.length === 0) {
        console.error("nestbox: walk: the trace holds no such translation");
        process.exitCode = EXIT_FAILED;
        return;
      }
      const width = process.stdout.columns ?? 120;
      const colours = process.stdout.isTTY === true && process.env.NO_COLOR === undefined;
      for (const one of chosen) {
        const grid = walkGrid(one);
        if (options.json === true) {
          console.log(JSON.stringify(grid, (_key, v: unknown) => (typeof v === "bigint" ? `0x${v.toString(16)}` : v)));
          continue;
        }
        console.log(walkText(grid, { width, colours }));
        const why = options.why === true ? whyText(grid) : null;
        if (why !== null) console.log(why);
      }
    });
}

function filterOf(options: WalkOptions): (walk: Walk) => boolean {
  const device = options.device === undefined ? null : deviceId(options.device);
  const page = options.iova === undefined ? null : parseAddress(options.iova) >> 12n;
  return (walk) =>
    (device === null || walk.deviceId === device) &&
    (page === null || walk.iova >> 12n === page) &&
    (options.pasid === undefined || walk.pasid === options.pasid) &&
    (options.write !== true || walk.write);
}

/** The last walk that faulted or loaded tables; failing that, the last. */
function lastTelling(walks: readonly Walk[]): readonly Walk[] {
  const telling = walks.findLast((one) => one.fault !== null || one.steps.length > 0) ?? walks.at(-1);
  return telling === undefined ? [] : [telling];
}

function deviceId(text: string): number {
  const id = parseBdf(text);
  if (id === undefined) throw new UsageError(`--device ${text}: expected a PCI address such as 00:01.0`);
  return id;
}

function parseAddress(text: string): bigint {
  if (!/^(0x[0-9a-fA-F]+|\d+)$/.test(text)) throw new UsageError(`--iova ${text}: expected an address such as 0x1000`);
  return BigInt(text);
}
