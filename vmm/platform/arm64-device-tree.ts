// The device tree handed to an AArch64 guest, generated from what the machine holds. Guest devices are behind the vIOMMU by iommu-map; messages go to
// the GICv2m frame.
//
// A host's messages pass the guest's stage 1 at the host's software MSI window: the guest's kernel must map it one to one for every assigned function. A
// reserved-memory node says so, with the functions it is for in `iommu-addresses` (reserved-memory.yaml): without it devices lose their interrupts.

import type { TreeRequest } from "../kernel-machine.ts";
import { GICC_BASE, GICD_BASE, GICV2M_BASE, SW_MSI_BASE, SW_MSI_SIZE, UART_BASE } from "../memory-map.ts";
import { formatPlace, type PciPlace } from "../pci/host-bridge.ts";
import {
  chosen,
  type InterruptWiring,
  memory,
  pci,
  platformDeviceNodes,
  range,
  serial,
  viommuNodes,
} from "./device-tree-nodes.ts";
import { type Cell, encodeDeviceTree, ref, type TreeNode } from "./flattened-device-tree.ts";

export interface Arm64Platform extends TreeRequest {
  readonly cpus: number;
  readonly memoryBytes: number;
  /** Numbers of shared peripheral interrupts, from 0. */
  readonly uartSpi: number;
  readonly intxSpi: number;
  /** First SPI of vIOMMU i is viommuSpi + i × viommuWires. */
  readonly viommuSpi: number;
  readonly viommuWires: number;
  /** First of the SPIs of platform devices' wires. */
  readonly platformSpi: number;
}

const SPI = 0;
const PPI = 1;
const EDGE_RISING = 1;
const LEVEL_HIGH = 4;
const LEVEL_LOW = 8;

export function arm64DeviceTree(platform: Arm64Platform): Uint8Array {
  const wiring: InterruptWiring = {
    controller: ref("gic"),
    unitAddress: [0, 0],
    uart: [SPI, platform.uartSpi, LEVEL_HIGH],
    intx: (line) => [SPI, platform.intxSpi + line, LEVEL_HIGH],
    viommu: (index) =>
      Array.from({ length: platform.viommuWires }, (_, wire) => [
        SPI,
        platform.viommuSpi + index * platform.viommuWires + wire,
        EDGE_RISING,
      ]),
    platform: (wire) => [SPI, platform.platformSpi + wire, LEVEL_HIGH],
    messages: ref("v2m"),
  };
  const functions: PciPlace[] = platform.viommus.flatMap(({ requesterIds, behindPorts = [] }) => [
    ...requesterIds.map((routingId) => ({ routingId })),
    ...behindPorts,
  ]);
  return encodeDeviceTree({
    name: "",
    properties: {
      "#address-cells": [2],
      "#size-cells": [2],
      "interrupt-parent": [ref("gic")],
      compatible: "nestbox,arm64",
      model: "nestbox",
    },
    children: [
      { name: "aliases", properties: { serial0: `/soc/serial@${UART_BASE.toString(16)}` } },
      chosen(platform),
      memory(platform.memoryBytes),
      cpus(platform),
      { name: "psci", properties: { compatible: ["arm,psci-1.0", "arm,psci-0.2"], method: "hvc" } },
      {
        name: "timer",
        properties: {
          compatible: "arm,armv8-timer",
          // secure physical, physical, virtual, hypervisor's
          interrupts: [13, 14, 11, 10].flatMap((ppi) => [PPI, ppi, (((1 << platform.cpus) - 1) << 8) | LEVEL_LOW]),
          "always-on": true,
        },
      },
      ...(functions.length === 0 ? [] : [reservedMemory(functions)]),
      {
        name: "soc",
        properties: { "#address-cells": [2], "#size-cells": [2], compatible: "simple-bus", ranges: true },
        children: [
          gic(),
          serial(wiring),
          ...viommuNodes(platform, wiring),
          pci(platform, wiring, functionNodes(functions)),
          ...platformDeviceNodes(platform, wiring),
        ],
      },
    ],
  });
}

function cpus(platform: Arm64Platform): TreeNode {
  return {
    name: "cpus",
    properties: { "#address-cells": [1], "#size-cells": [0] },
    children: Array.from({ length: platform.cpus }, (_, cpu) => ({
      name: `cpu@${cpu}`,
      properties: { device_type: "cpu", compatible: "arm,armv8", reg: [cpu], "enable-method": "psci" },
    })),
  };
}

function gic(): TreeNode {
  return {
    name: `interrupt-controller@${GICD_BASE.toString(16)}`,
    label: "gic",
    properties: {
      compatible: "arm,cortex-a15-gic",
      reg: [...range(GICD_BASE, 0x1_0000), ...range(GICC_BASE, 0x2000)],
      "interrupt-controller": true,
      "#interrupt-cells": [3],
      "#address-cells": [2],
      "#size-cells": [2],
      ranges: true,
    },
    children: [
      {
        name: `v2m@${GICV2M_BASE.toString(16)}`,
        label: "v2m",
        properties: { compatible: "arm,gic-v2m-frame", reg: range(GICV2M_BASE, 0x1000), "msi-controller": true },
      },
    ],
  };
}

const MSI_WINDOW = "msi-window";
const functionLabel = (place: PciPlace): string => `function${formatPlace(place)}`;

const deviceFunctionName = (devfn: number): string =>
  `${((devfn >> 3) & 31).toString(16)}${(devfn & 7) === 0 ? "" : `,${devfn & 7}`}`;

/** IEEE 1275 PCI binding: the first cell holds bus, device and function. Linux looks at device and function alone (drivers/pci/of.c). */
const configurationSpace = (devfn: number): Cell[] => [devfn << 8, 0, 0, 0, 0];

/** Functions that the MSI window is for, those behind a root port under a node of that port. */
function functionNodes(functions: readonly PciPlace[]): TreeNode[] {
  const ports = new Map<number, TreeNode[]>();
  const nodes: TreeNode[] = [];
  for (const place of functions) {
    const devfn = place.behind ?? place.routingId;
    const node: TreeNode = {
      name: `device@${deviceFunctionName(devfn)}`,
      label: functionLabel(place),
      properties: { reg: configurationSpace(devfn), "memory-region": [ref(MSI_WINDOW)] },
    };
    if (place.behind === undefined) nodes.push(node);
    else ports.set(place.routingId, [...(ports.get(place.routingId) ?? []), node]);
  }
  for (const [port, children] of ports) {
    nodes.push({
      name: `pci@${deviceFunctionName(port)}`,
      properties: {
        device_type: "pci",
        reg: configurationSpace(port),
        "#address-cells": [3],
        "#size-cells": [2],
        ranges: true,
      },
      children,
    });
  }
  return nodes;
}

function reservedMemory(functions: readonly PciPlace[]): TreeNode {
  // an address of the function's bus: three cells, the first says memory of 32 bits
  const forAll: Cell[] = functions.flatMap((place) => [
    ...[ref(functionLabel(place)), 0x02000000, 0, SW_MSI_BASE],
    BigInt(SW_MSI_SIZE),
  ]);
  return {
    name: "reserved-memory",
    properties: { "#address-cells": [2], "#size-cells": [2], ranges: true },
    children: [
      {
        name: `msi-window@${SW_MSI_BASE.toString(16)}`,
        label: MSI_WINDOW,
        properties: { reg: range(SW_MSI_BASE, SW_MSI_SIZE), "iommu-addresses": forAll },
      },
    ],
  };
}
