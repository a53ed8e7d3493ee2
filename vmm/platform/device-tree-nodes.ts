// Nodes of a device tree that are the same for every instruction set: what the machine is told to boot with, memory, console, PCI and its IOMMUs. Interrupts
// go to `InterruptWiring`, which an instruction set describes.

import type { DescribedViommu, TreeRequest } from "../kernel-machine.ts";
import {
  ECAM_BASE,
  ECAM_BUSES,
  PCI_MEMORY32_BASE,
  PCI_MEMORY32_SIZE,
  PCI_MEMORY64_BASE,
  PCI_MEMORY64_SIZE,
  RAM_BASE,
  SW_MSI_BASE,
  SW_MSI_SIZE,
  UART_BASE,
} from "../memory-map.ts";
import { type Cell, type Reference, ref, type TreeNode } from "./flattened-device-tree.ts";

export const range = (base: number, size: number): Cell[] => [BigInt(base), BigInt(size)];

/** How wires and messages reach a platform's interrupt controllers. */
export interface InterruptWiring {
  /** The controller of wires. */
  readonly controller: Reference;
  /** Cells of a parent's unit address that stand in an interrupt-map, before the specifier. */
  readonly unitAddress: readonly Cell[];
  readonly uart: readonly Cell[];
  /** INTx `line` 0…3. */
  readonly intx: (line: number) => readonly Cell[];
  /** Wires of vIOMMU `index`; absent: it has messages only. */
  readonly viommu?: (index: number) => readonly (readonly Cell[])[];
  /** Wire `wire` of platform devices. */
  readonly platform: (wire: number) => readonly Cell[];
  /** Where messages go. */
  readonly messages: Reference;
}

export function chosen(request: TreeRequest, more: TreeNode["properties"] = {}): TreeNode {
  const { initrd } = request;
  return {
    name: "chosen",
    properties: {
      "stdout-path": `/soc/serial@${UART_BASE.toString(16)}`,
      bootargs: request.bootArguments,
      "rng-seed": request.seed,
      ...more,
      ...(initrd === null
        ? {}
        : { "linux,initrd-start": [BigInt(initrd.start)], "linux,initrd-end": [BigInt(initrd.end)] }),
    },
  };
}

export function memory(bytes: number): TreeNode {
  return {
    name: `memory@${RAM_BASE.toString(16)}`,
    properties: { device_type: "memory", reg: range(RAM_BASE, bytes) },
  };
}

export function serial(wiring: InterruptWiring): TreeNode {
  return {
    name: `serial@${UART_BASE.toString(16)}`,
    properties: {
      compatible: "ns16550a",
      reg: range(UART_BASE, 0x100),
      "clock-frequency": [3_686_400],
      "interrupt-parent": [wiring.controller],
      interrupts: wiring.uart,
    },
  };
}

export function viommuNodes({ viommus, kind }: TreeRequest, wiring: InterruptWiring): TreeNode[] {
  return viommus.flatMap(({ base, hardwareQueues }, index) => {
    const wires = wiring.viommu?.(index);
    const interruptParent = wires === undefined ? {} : { "interrupt-parent": [wiring.controller] };
    const { companion } = kind.node;
    const beside = hardwareQueues === true && companion !== undefined ? companion : null;
    const label = `iommu${index}-companion`;
    const node: TreeNode = {
      name: `iommu@${base.toString(16)}`,
      label: `iommu${index}`,
      properties: {
        // What stands behind the registers is another node's, if it is anybody's.
        reg: range(base, companion === undefined ? (kind.addressBytes ?? kind.registerBytes) : kind.registerBytes),
        ...interruptParent,
        ...kind.node.deviceTree({
          msiParent: wiring.messages,
          identityRegion: range(SW_MSI_BASE, SW_MSI_SIZE),
          ...(wires === undefined ? {} : { wires }),
          ...(beside === null ? {} : { companion: ref(label) }),
        }),
      },
    };
    if (beside === null) return [node];
    const reg = range(base + beside.offset, beside.bytes);
    const name = `${beside.name}@${(base + beside.offset).toString(16)}`;
    return [node, { name, label, properties: { reg, ...interruptParent, ...beside.properties(wires) } }];
  });
}

/** Devices on no bus: registers, wires, and the id at the vIOMMU that each is behind (bindings: iommu/iommu.txt; arm,smmu-v3.yaml for dma-can-stall). */
export function platformDeviceNodes({ platformDevices }: TreeRequest, wiring: InterruptWiring): TreeNode[] {
  return (platformDevices ?? []).map(({ request, regions, wires, viommu }) => ({
    name: `${request.compatible.replace(/^.*,/, "")}@${regions[0]?.base.toString(16) ?? "0"}`,
    properties: {
      compatible: request.compatible,
      reg: regions.flatMap(({ base, size }) => range(base, size)),
      "interrupt-parent": [wiring.controller],
      interrupts: wires.flatMap(wiring.platform),
      "dma-coherent": true as const,
      ...(viommu < 0 ? {} : { iommus: [ref(`iommu${viommu}`), request.guestId] }),
      ...(viommu >= 0 && request.canStall ? { "dma-can-stall": true as const } : {}),
    },
  }));
}

/** The host bridge; `children`: nodes of functions that something else in the tree refers to. */
export function pci({ viommus }: TreeRequest, wiring: InterruptWiring, children: readonly TreeNode[] = []): TreeNode {
  const map: Cell[] = [];
  for (let slot = 0; slot < 4; slot++) {
    for (let pin = 1; pin <= 4; pin++) {
      map.push(slot * 0x800, 0, 0, pin, wiring.controller, ...wiring.unitAddress, ...wiring.intx((slot + pin - 1) % 4));
    }
  }
  return {
    name: `pci@${ECAM_BASE.toString(16)}`,
    properties: {
      compatible: "pci-host-ecam-generic",
      device_type: "pci",
      reg: range(ECAM_BASE, ECAM_BUSES * 0x100000),
      "#address-cells": [3],
      "#size-cells": [2],
      "bus-range": [0, ECAM_BUSES - 1],
      "dma-coherent": true,
      ranges: [
        ...[0x02000000, BigInt(PCI_MEMORY32_BASE), BigInt(PCI_MEMORY32_BASE), BigInt(PCI_MEMORY32_SIZE)],
        ...[0x43000000, BigInt(PCI_MEMORY64_BASE), BigInt(PCI_MEMORY64_BASE), BigInt(PCI_MEMORY64_SIZE)],
      ],
      "msi-parent": [wiring.messages],
      ...(viommus.length === 0 ? {} : { "iommu-map": iommuMap(viommus) }),
      "#interrupt-cells": [1],
      "interrupt-map-mask": [0x1800, 0, 0, 7],
      "interrupt-map": map,
    },
    children,
  };
}

/** Requester ids to vIOMMUs: (first id, vIOMMU, first id there, how many) each; the id at the vIOMMU is the requester id. */
function iommuMap(viommus: readonly DescribedViommu[]): Cell[] {
  if (viommus.length === 1) return [0, ref("iommu0"), 0, 0x10000];
  const map: Cell[] = [];
  viommus.forEach(({ requesterIds }, index) => {
    for (const id of requesterIds) map.push(id, ref(`iommu${index}`), id, 1);
  });
  const rest = viommus.findIndex(({ otherIds }) => otherIds === true);
  if (rest < 0) return map;
  const named = viommus.flatMap(({ requesterIds }) => requesterIds).sort((a, b) => a - b);
  let from = 0;
  for (const id of [...named, 0x10000]) {
    if (id > from) map.push(from, ref(`iommu${rest}`), from, id - from);
    from = id + 1;
  }
  return map;
}
