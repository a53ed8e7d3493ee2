// `nestbox serve-iommufd SOCKET`: the host model's /dev/iommu for unmodified Linux programs (test/conformance/iommufd/PROTOCOL.md).

import { Command } from "commander";
import { serveIommufd as serve } from "../../../host/adapters/serve-iommufd.ts";
import { EXIT_USAGE } from "../exit-codes.ts";

export function serveIommufd(): Command {
  return new Command("serve-iommufd")
    .description("serve the host model's /dev/iommu to Linux programs through the preload shim")
    .argument("<socket>", "path of the UNIX socket to make")
    .option("--stats", "when ended, print the number of calls, their mean time, and what is still alive")
    .action((socket: string, options: { stats?: true }) => {
      const service = serve(socket, (problem) => {
        if (problem === null) return;
        console.error(`nestbox: serve-iommufd: ${problem}`);
        process.exit(EXIT_USAGE);
      });
      const end = () => {
        service.close();
        if (options.stats === true) for (const line of service.statistics()) console.error(`serve-iommufd: ${line}`);
        process.exit(0);
      };
      process.on("SIGTERM", end);
      process.on("SIGINT", end);
    });
}
