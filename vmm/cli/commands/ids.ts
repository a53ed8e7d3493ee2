// `nestbox ids --trace FILE`: which guest device is which host device.

import { Command } from "commander";
import { hex } from "../../../host/base/address.ts";
import { idsOfTrace } from "../../view/ids.ts";
import { tableText } from "../terminal.ts";
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
      const head = ["guest", "guest id", "vDEVICE", "vIOMMU", "host", "host id", "group"];
      const cells = rows.map((row) => {
        const host = row.hostDeviceId === null ? "no DMA seen" : hex(row.hostDeviceId);
        const names = [
          row.guestBdf,
          hex(row.guestDeviceId),
          String(row.vdevice),
          String(row.viommu),
          row.hostBdf,
          host,
        ];
        return [...names, String(row.group ?? "?")];
      });
      console.log(tableText(head, cells));
    });
}
