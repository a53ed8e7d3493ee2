// `nestbox ids --trace FILE`: which guest device is which host device.

import Table from "cli-table3";
import { Command } from "commander";
import { hex } from "../../../host/base/address.ts";
import { idsOfTrace } from "../../view/ids.ts";
import { readTraceFile } from "../trace-file.ts";

export function ids(): Command {
  return new Command("ids")
    .description("guest BDF, guest device id, vDEVICE, host BDF, host device id, from a trace")
    .requiredOption("--trace <file>", "trace to look in")
    .option("--json", "print JSON")
    .action((options: { trace: string; json?: true }) => {
      const rows = idsOfTrace(readTraceFile(options.trace));
      if (options.json === true) {
        console.log(JSON.stringify(rows));
        return;
      }
      const head = ["guest", "guest device id", "vDEVICE", "vIOMMU", "host", "host device id"];
      const table = new Table({ head, style: { head: [], border: [] } });
      for (const row of rows) {
        const host = row.hostDeviceId === null ? "no DMA seen" : hex(row.hostDeviceId);
        table.push([row.guestBdf, hex(row.guestDeviceId), row.vdevice, row.viommu, row.hostBdf, host]);
      }
      console.log(table.toString());
    });
}
