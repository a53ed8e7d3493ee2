// The machine as a tree of plain values, for `nestbox inspect`: the host (if the caller shows it) beside the VM. Reading it changes
// nothing: registers are read through their tables, never through side effects.

import { hex } from "../../host/base/address.ts";
import type { Assignment } from "../assignment.ts";
import type { Machine } from "../machine.ts";
import { formatBdf, type PciHostBridge } from "../pci/host-bridge.ts";

export type Tree = { [name: string]: Tree | string | number | boolean };

export interface VmParts {
  readonly machine: Machine;
  readonly pci: PciHostBridge;
  readonly assignment: Assignment;
  readonly memoryBytes: number;
}

/** The VM's side. */
export function vmTree({ machine, pci, assignment, memoryBytes }: VmParts): Tree {
  const bus: Tree = {};
  for (const { name, base, size } of machine.bus.ranges) bus[name] = `${hex(base)}..${hex(base + size - 1)}`;
  const viommus: Tree = {};
  for (const { name, key, iommu, base, viommu } of assignment.viommus) {
    const devices: Tree = {};
    for (const state of viommu.plugged) {
      devices[state.device.name] = {
        "device id": hex(state.device.guestId),
        host: state.device.hostName ?? "emulated",
        ...(state.device.stream === undefined ? {} : { "one stream with": state.device.stream }),
        disposition: state.disposition,
        ...(state.disposition === "blocked" ? { cause: state.cause } : {}),
        ...(state.refusal === 0 ? {} : { "host refused": state.refusal }),
      };
    }
    viommus[name] = {
      base: hex(base),
      ...(key === iommu ? {} : { name: key }),
      over: iommu ?? "no hardware",
      registers: { ...assignment.kind.explainer.registers(viommu) },
      devices,
    };
  }
  const functions: Tree = {};
  for (const [routingId, pciFunction] of pci.functions) {
    const bars: Tree = {};
    pciFunction.bars.forEach((bar, index) => {
      if (bar !== null) bars[`BAR ${index}`] = `${hex(bar.size)} bytes at ${barPlace(pciFunction.barBase(index))}`;
    });
    functions[formatBdf(routingId)] = {
      id: `${hex(pciFunction.configRead(0, 2), 4)}:${hex(pciFunction.configRead(2, 2), 4)}`,
      command: hex(pciFunction.configRead(4, 2)),
      ...bars,
    };
  }
  const platform: Tree = {};
  for (const { device, request, regions, wires, viommu } of assignment.platform.entries) {
    platform[device.hostName] = {
      compatible: request.compatible,
      registers: regions.map(({ base, size }) => `${hex(size)} bytes at ${hex(base)}`).join(", "),
      wires: wires.join(" ") || "none",
      "device id": device.name,
      viommu: assignment.viommus[viommu]?.name ?? "none",
      stalls: request.canStall ? "its transactions may wait (dma-can-stall)" : "never",
    };
  }
  return {
    ram: `${memoryBytes / 2 ** 20} MiB`,
    "virtual time": `${machine.clock.now} ns`,
    traps: machine.counters.traps,
    bus,
    viommus,
    pci: functions,
    ...(assignment.platform.entries.length === 0 ? {} : { platform }),
  };
}

const barPlace = (base: number): string => (base < 0 ? "no address" : hex(base));

/** The part of a tree at a path such as "vm/viommus/viommu0"; null if there is none. */
export function subtree(tree: Tree, path: string): Tree | string | number | boolean | null {
  let at: Tree | string | number | boolean = tree;
  for (const name of path.split("/").filter((part) => part !== "")) {
    if (typeof at !== "object" || !Object.hasOwn(at, name)) return null;
    at = at[name]!;
  }
  return at;
}

/** Indented text, one name a line. */
export function treeText(tree: Tree | string | number | boolean, indent = ""): string {
  if (typeof tree !== "object") return `${indent}${tree}`;
  return Object.entries(tree)
    .map(([name, value]) => {
      if (typeof value !== "object") return `${indent}${name}: ${value}`;
      const inner = treeText(value, `${indent}  `);
      return inner === "" ? `${indent}${name}: none` : `${indent}${name}\n${inner}`;
    })
    .join("\n");
}
