// `nestbox hosts [NAME|FILE]`: the built-in hosts, or one in full.

import { Command } from "commander";
import { builtInHosts, DEFAULT_HOST } from "../../../host/built-in-hosts.ts";
import { type HostDescription, iommuGroups } from "../../../host/description.ts";
import { findHost } from "../hosts.ts";
import { fitted } from "../terminal.ts";

export function hosts(): Command {
  return new Command("hosts")
    .description("list the built-in hosts, or print one as JSON")
    .argument("[host]", "name of a built-in host, or a JSON file to check")
    .option("--json", "print the list as JSON")
    .action((name: string | undefined, options: { json?: true }) => {
      if (name !== undefined) {
        console.log(toJson(withGroups(findHost(name))));
      } else if (options.json === true) {
        console.log(toJson(builtInHosts.map(withGroups)));
      } else {
        for (const host of builtInHosts) {
          console.log(
            fitted(`${host.name}${host.name === DEFAULT_HOST ? " (default)" : ""}: ${host.description ?? ""}`),
          );
          const groups = iommuGroups(host);
          const shown = ({ model, iommu }: { model: string; iommu?: string | undefined }, name: string): void => {
            const group = groups.find(({ devices }) => devices.includes(name));
            const inGroup = group === undefined ? "" : `, iommu group ${group.id}`;
            console.log(`    ${name.padEnd(12)}  ${model.padEnd(5)} behind ${iommu ?? "no IOMMU"}${inGroup}`);
          };
          for (const device of host.devices) shown(device, device.bdf);
          for (const device of host.platform) shown(device, device.name);
        }
      }
    });
}

/** Every device says its group, so that what is printed is a description that can be run on, and makes the same groups. */
function withGroups(host: HostDescription): HostDescription {
  const groups = iommuGroups(host);
  const devices = host.devices.map((device) => {
    const group = groups.find((candidate) => candidate.devices.includes(device.bdf));
    return group === undefined ? device : { ...device, group: group.id };
  });
  return { ...host, devices };
}

function toJson(value: unknown): string {
  return JSON.stringify(value, (_key, v: unknown) => (typeof v === "bigint" ? `0x${v.toString(16)}` : v), 2);
}
