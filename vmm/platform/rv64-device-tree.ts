// The device tree handed to an RV64 guest, generated from what the machine holds. Binding names and which properties Linux needs:
// vmm/platform/README.md. Guest devices are behind the vIOMMU by iommu-map; MSIs go to the IMSIC pages.

import type { DescribedViommu } from "../kernel-machine.ts";
import {
  APLIC_BASE,
  ECAM_BASE,
  ECAM_BUSES,
  MSI_BASE,
  PCI_MEMORY32_BASE,
  PCI_MEMORY32_SIZE,
  PCI_MEMORY64_BASE,
  PCI_MEMORY64_SIZE,
  RAM_BASE,
  SW_MSI_BASE,
  SW_MSI_SIZE,
  UART_BASE,
} from "../memory-map.ts";
import { CACHE_BLOCK_BYTES, isaString } from "../vcpu/riscv64/extensions.ts";
import type { ViommuKind } from "../viommu/kind.ts";
import { type Cell, encodeDeviceTree, ref, type TreeNode } from "./flattened-device-tree.ts";

export interface Rv64Platform {
  readonly harts: number;
  readonly memoryBytes: number;
  readonly timebaseHz: number;
  readonly isaExtensions: readonly string[];
  /** "riscv,sv39" | "riscv,sv48" | "riscv,sv57" | null: let the kernel probe. */
  readonly mmuType: string | null;
  readonly bootArguments: string;
  readonly initrd: { readonly start: number; readonly end: number } | null;
  /** Kind of the vIOMMUs. */
  readonly kind: ViommuKind;
  readonly viommus: readonly DescribedViommu[];
  readonly aplicSources: number;
  readonly imsicIds: number;
  readonly uartSource: number;
  /** First of the four APLIC sources of PCI INTx. */
  readonly intxSource: number;
  /** 32 bytes of seed, deterministic from the run's. */
  readonly seed: Uint8Array;
}

const range = (base: number, size: number): Cell[] => [BigInt(base), BigInt(size)];
const LEVEL_HIGH = 4;

export function rv64DeviceTree(platform: Rv64Platform): Uint8Array {
  return encodeDeviceTree({
    name: "",
    properties: { "#address-cells": [2], "#size-cells": [2], compatible: "nestbox,rv64", model: "nestbox" },
    children: [
      { name: "aliases", properties: { serial0: `/soc/serial@${UART_BASE.toString(16)}` } },
      {
        name: "chosen",
        properties: {
          "stdout-path": `/soc/serial@${UART_BASE.toString(16)}`,
          bootargs: platform.bootArguments,
          "rng-seed": platform.seed,
          "kaslr-seed": platform.seed.subarray(0, 8),
          ...(platform.initrd === null
            ? {}
            : {
                "linux,initrd-start": [BigInt(platform.initrd.start)],
                "linux,initrd-end": [BigInt(platform.initrd.end)],
              }),
        },
      },
      {
        name: `memory@${RAM_BASE.toString(16)}`,
        properties: { device_type: "memory", reg: range(RAM_BASE, platform.memoryBytes) },
      },
      cpus(platform),
      {
        name: "soc",
        properties: { "#address-cells": [2], "#size-cells": [2], compatible: "simple-bus", ranges: true },
        children: soc(platform),
      },
    ],
  });
}

function cpus(platform: Rv64Platform): TreeNode {
  return {
    name: "cpus",
    properties: { "#address-cells": [1], "#size-cells": [0], "timebase-frequency": [platform.timebaseHz] },
    children: Array.from({ length: platform.harts }, (_, hart) => ({
      name: `cpu@${hart}`,
      properties: {
        device_type: "cpu",
        compatible: "riscv",
        reg: [hart],
        "riscv,isa-base": "rv64i",
        "riscv,isa-extensions": platform.isaExtensions,
        // what readers of device trees older than the two properties above look for
        "riscv,isa": isaString(platform.isaExtensions),
        "riscv,cbom-block-size": [CACHE_BLOCK_BYTES],
        "riscv,cbop-block-size": [CACHE_BLOCK_BYTES],
        "riscv,cboz-block-size": [CACHE_BLOCK_BYTES],
        ...(platform.mmuType === null ? {} : { "mmu-type": platform.mmuType }),
      },
      children: [
        {
          name: "interrupt-controller",
          label: `intc${hart}`,
          properties: {
            compatible: "riscv,cpu-intc",
            "interrupt-controller": true as const,
            "#interrupt-cells": [1],
            "#address-cells": [0],
          },
        },
      ],
    })),
  };
}

function soc(platform: Rv64Platform): TreeNode[] {
  const nodes: TreeNode[] = [
    {
      name: `interrupt-controller@${MSI_BASE.toString(16)}`,
      label: "imsic",
      properties: {
        compatible: "riscv,imsics",
        reg: range(MSI_BASE, 0x1000 * platform.harts),
        "interrupt-controller": true,
        "#interrupt-cells": [0],
        "#address-cells": [0],
        "msi-controller": true,
        "#msi-cells": [0],
        "interrupts-extended": Array.from({ length: platform.harts }, (_, hart) => [ref(`intc${hart}`), 9]).flat(),
        "riscv,num-ids": [platform.imsicIds],
      },
    },
    {
      name: `interrupt-controller@${APLIC_BASE.toString(16)}`,
      label: "aplic",
      properties: {
        compatible: "riscv,aplic",
        reg: range(APLIC_BASE, 0x4000),
        "interrupt-controller": true,
        "#interrupt-cells": [2],
        "#address-cells": [0],
        "msi-parent": [ref("imsic")],
        "riscv,num-sources": [platform.aplicSources],
      },
    },
    {
      name: `serial@${UART_BASE.toString(16)}`,
      properties: {
        compatible: "ns16550a",
        reg: range(UART_BASE, 0x100),
        "clock-frequency": [3_686_400],
        "interrupt-parent": [ref("aplic")],
        interrupts: [platform.uartSource, LEVEL_HIGH],
      },
    },
  ];
  platform.viommus.forEach(({ base }, index) => {
    nodes.push({
      name: `iommu@${base.toString(16)}`,
      label: `iommu${index}`,
      properties: {
        reg: range(base, platform.kind.addressBytes ?? platform.kind.registerBytes),
        ...platform.kind.node.deviceTree({
          msiParent: ref("imsic"),
          identityRegion: range(SW_MSI_BASE, SW_MSI_SIZE),
        }),
      },
    });
  });
  nodes.push(pci(platform));
  return nodes;
}

function pci(platform: Rv64Platform): TreeNode {
  const map: Cell[] = [];
  for (let slot = 0; slot < 4; slot++) {
    for (let pin = 1; pin <= 4; pin++) {
      map.push(slot * 0x800, 0, 0, pin, ref("aplic"), platform.intxSource + ((slot + pin - 1) % 4), LEVEL_HIGH);
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
      "msi-parent": [ref("imsic")],
      ...(platform.viommus.length === 0 ? {} : { "iommu-map": iommuMap(platform.viommus) }),
      "#interrupt-cells": [1],
      "interrupt-map-mask": [0x1800, 0, 0, 7],
      "interrupt-map": map,
    },
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
