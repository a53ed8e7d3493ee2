// `nestbox hosts [NAME|FILE]`: the built-in hosts, or one in full.

import { Command } from "commander";
import { builtInHosts, DEFAULT_HOST } from "../../../host/built-in-hosts.ts";
import { findHost } from "../hosts.ts";
import { fitted } from "../terminal.ts";

export function hosts(): Command {
  return new Command("hosts")
    .description("list the built-in hosts, or print one as JSON")
    .argument("[host]", "name of a built-in host, or a JSON file to check")
    .option("--json", "print the list as JSON")
    .action((name: string | undefined, options: { json?: true }) => {
      if (name !== undefined) {
        console.log(toJson(findHost(name)));
      } else if (options.json === true) {
        console.log(toJson(builtInHosts));
      } else {
        for (const host of builtInHosts) {
          console.log(
            fitted(`${host.name}${host.name === DEFAULT_HOST ? " (default)" : ""}: ${host.description ?? ""}`),
          );
          for (const device of host.devices) {
            console.log(`    ${device.bdf}  ${device.model.padEnd(5)} behind ${device.iommu ?? "no IOMMU"}`);
          }
        }
      }
    });
}

function toJson(value: unknown): string {
  return JSON.stringify(value, (_key, v: unknown) => (typeof v === "bigint" ? `0x${v.toString(16)}` : v), 2);
}
