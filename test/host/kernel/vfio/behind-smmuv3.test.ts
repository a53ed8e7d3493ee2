// The suites of VFIO and of what iommufd does for its devices, once more on hosts whose IOMMUs are SMMUv3s. What a test asks of a RISC-V IOMMU is
// asked of an SMMUv3 in its own terms.

import { describe, vi } from "vitest";
import type { RiscvIommuOptions } from "../../../../host/hw/iommu/riscv/options.ts";
import type { Smmuv3Options } from "../../../../host/hw/iommu/smmuv3/options.ts";
import type { MachineOptions } from "../machine.ts";

const translated = vi.hoisted(() => {
  return ({ capabilities = {} }: RiscvIommuOptions): Smmuv3Options => {
    const { PD8 = true, PD17 = true, PD20 = true, ATS = true, AMO_HWAD = true } = capabilities;
    return { features: { SSIDSIZE: PD20 ? 20 : PD17 ? 17 : PD8 ? 8 : 0, ATS, HTTU: AMO_HWAD ? 2 : 0 } };
  };
});

vi.mock("../machine.ts", async (original) => {
  const real = await original<typeof import("../machine.ts")>();
  const machine = (options: MachineOptions = {}) => {
    const { iommus = [{}], ...rest } = options;
    return real.machine({ ...rest, smmus: iommus.map(translated) });
  };
  return { ...real, machine, KIND: "smmuv3" };
});

describe("behind SMMUv3s", async () => {
  await import("./config-space.test.ts");
  await import("./container.test.ts");
  await import("./device.test.ts");
  await import("./group.test.ts");
  await import("./pasid.test.ts");
  await import("./request-rules.test.ts");
});
