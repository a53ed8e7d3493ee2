// `nestbox ids --trace FILE`: which guest device is which host device.

import { Command } from "commander";
import { idsOfTrace } from "../../view/ids.ts";
import { identityTable } from "../tables.ts";
import { readTraceFile } from "../trace-file.ts";

export function ids(): Command {
  return new Command("ids")
    .description("who is who, from a trace: guest BDF and device id, vDEVICE, host BDF and device id, iommu group")
    .requiredOption("--trace <file>", "trace to look in")
    .option("--json", "print JSON")
    .action((options: { trace: string; json?: true }) => {
      const rows = idsOfTrace(readTraceFile(options.trace));
      if (options.json === true) {
        console.log(JSON.stringify(rows));
        return;
      }
      console.log(identityTable(rows));
    });
}
