// The world of component guests as the VMM knows it: each interface's functions with their signatures, parameter names left out.
// guest-fixtures/wit/guest.wit is the same as a user reads it; a test holds the two together.

export const WORLD_VERSION = "@0.1.0";
export const WORLD_NAME = `nestbox:guest/guest${WORLD_VERSION}`;

/** Region kinds in the order of the WIT enum: a guest passes the index. */
export const REGION_KINDS = [
  "ram",
  "iommu",
  "pci-config",
  "pci-memory32",
  "pci-memory64",
  "msi-page",
  "identity",
  "smmuv3",
  "platform-edu",
  "vtd",
] as const;
export type RegionKind = (typeof REGION_KINDS)[number];

const KIND = `enum { ${REGION_KINDS.join(", ")} }`;

/** Interface name to function name to signature. */
export const WORLD_IMPORTS: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  "nestbox:guest/mmio@0.1.0": {
    load8: "func(u32, u32) -> u8",
    load16: "func(u32, u32) -> u16",
    load32: "func(u32, u32) -> u32",
    load64: "func(u32, u32) -> u32",
    "high-half": "func() -> u32",
    store8: "func(u32, u32, u8)",
    store16: "func(u32, u32, u16)",
    store32: "func(u32, u32, u32)",
    store64: "func(u32, u32, u32, u32)",
  },
  "nestbox:guest/interrupts@0.1.0": { wait: "func() -> s32", poll: "func() -> s32" },
  "nestbox:guest/console@0.1.0": { write: "func(list<u8>)" },
  "nestbox:guest/platform@0.1.0": {
    count: `func(${KIND}) -> u32`,
    base: `func(${KIND}, u32) -> u64`,
    size: `func(${KIND}, u32) -> u64`,
    "iommu-line": "func(u32, u32) -> s32",
    "iommu-of": "func(u32) -> s32",
    "pci-line": "func(u32, u32) -> s32",
    "device-id": `func(${KIND}, u32) -> s32`,
    "device-iommu": `func(${KIND}, u32) -> s32`,
    "device-line": `func(${KIND}, u32) -> s32`,
  },
  "nestbox:guest/time@0.1.0": { now: "func() -> u64", alarm: "func(u64, u32)" },
  "nestbox:guest/power@0.1.0": { exit: "func(u32)" },
};

export const WORLD_EXPORTS: Readonly<Record<string, string>> = { run: "func() -> u32" };
