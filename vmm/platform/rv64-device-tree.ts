// The device tree handed to an RV64 guest, generated from what the machine holds. Binding names and which properties Linux needs:
// vmm/platform/README.md. Guest devices are behind the vIOMMU by iommu-map; MSIs go to the IMSIC pages.

import type { TreeRequest } from "../kernel-machine.ts";
import { APLIC_BASE, MSI_BASE, UART_BASE } from "../memory-map.ts";
import { CACHE_BLOCK_BYTES, isaString } from "../vcpu/riscv64/extensions.ts";
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
import { encodeDeviceTree, ref, type TreeNode } from "./flattened-device-tree.ts";

export interface Rv64Platform extends TreeRequest {
  readonly harts: number;
  readonly memoryBytes: number;
  readonly timebaseHz: number;
  readonly isaExtensions: readonly string[];
  /** "riscv,sv39" | "riscv,sv48" | "riscv,sv57" | null: let the kernel probe. */
  readonly mmuType: string | null;
  readonly aplicSources: number;
  readonly imsicIds: number;
  readonly uartSource: number;
  /** First of the four APLIC sources of PCI INTx. */
  readonly intxSource: number;
  /** First of the APLIC sources of platform devices' wires. */
  readonly platformSource: number;
}

const LEVEL_HIGH = 4;

export function rv64DeviceTree(platform: Rv64Platform): Uint8Array {
  return encodeDeviceTree({
    name: "",
    properties: { "#address-cells": [2], "#size-cells": [2], compatible: "nestbox,rv64", model: "nestbox" },
    children: [
      { name: "aliases", properties: { serial0: `/soc/serial@${UART_BASE.toString(16)}` } },
      chosen(platform, { "kaslr-seed": platform.seed.subarray(0, 8) }),
      memory(platform.memoryBytes),
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
  const wiring: InterruptWiring = {
    controller: ref("aplic"),
    unitAddress: [],
    uart: [platform.uartSource, LEVEL_HIGH],
    intx: (line) => [platform.intxSource + line, LEVEL_HIGH],
    platform: (wire) => [platform.platformSource + wire, LEVEL_HIGH],
    messages: ref("imsic"),
  };
  return [
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
    serial(wiring),
    ...viommuNodes(platform, wiring),
    pci(platform, wiring),
    ...platformDeviceNodes(platform, wiring),
  ];
}
