// The hosts that ship. `two-iommus` is the default: two RISC-V IOMMUs, two edu devices behind the first, one behind the second.

import { type HostDescription, parseHost } from "./description.ts";

const documents = [
  {
    name: "two-iommus",
    description: "two RISC-V IOMMUs; two edu devices behind the first, one behind the second (the default)",
    memory: "64M",
    iommus: [
      { name: "iommu0", kind: "riscv" },
      { name: "iommu1", kind: "riscv" },
    ],
    devices: [
      { model: "edu", bdf: "0000:00:01.0", iommu: "iommu0" },
      { model: "edu", bdf: "0000:00:02.0", iommu: "iommu0" },
      { model: "edu", bdf: "0000:80:01.0", iommu: "iommu1" },
    ],
  },
  {
    name: "one-iommu",
    description:
      "one RISC-V IOMMU with ATS and page requests; an edu device that uses PASID, ATS and PRI, and an NVMe drive in memory",
    memory: "64M",
    iommus: [{ name: "iommu0", kind: "riscv" }],
    devices: [
      { model: "edu", bdf: "0000:00:01.0", iommu: "iommu0", options: { pasidBits: 20, ats: true, pri: true } },
      { model: "nvme", bdf: "0000:00:02.0", iommu: "iommu0", options: { size: "16M" } },
    ],
  },
];

export const builtInHosts: readonly HostDescription[] = documents.map((document) => parseHost(document, document.name));
export const DEFAULT_HOST = "two-iommus";
