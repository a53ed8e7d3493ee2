// The suites of VFIO and of what iommufd does for its devices, once more on hosts whose IOMMUs are VT-d units. What a test asks of a RISC-V IOMMU is
// asked of a unit in its own terms.

import { describe, vi } from "vitest";
import type { RiscvIommuOptions } from "../../../../host/hw/iommu/riscv/options.ts";
import type { VtdOptions } from "../../../../host/hw/iommu/vtd/options.ts";
import type { MachineOptions } from "../machine.ts";

const translated = vi.hoisted(() => {
  return ({ capabilities = {} }: RiscvIommuOptions): VtdOptions => {
    const { PD8 = true, PD17 = true, PD20 = true, ATS = true, AMO_HWAD = true } = capabilities;
    const pasids = PD20 ? { PSS: 19 } : PD17 ? { PSS: 16 } : PD8 ? { PSS: 7 } : { PASID: false };
    return { features: { ...pasids, DT: ATS, SSADS: AMO_HWAD } };
  };
});

vi.mock("../machine.ts", async (original) => {
  const real = await original<typeof import("../machine.ts")>();
  const { VtdUnit } = await import("../../../../host/hw/iommu/vtd/unit.ts");
  const machine = (options: MachineOptions = {}) => {
    const { iommus = [{}], ...rest } = options;
    const make = iommus.map(
      (each) => (parts: ConstructorParameters<typeof VtdUnit>[0]) => new VtdUnit(parts, translated(each)),
    );
    return real.machine({ ...rest, hardware: { make, doorbells: 0xfee00 } });
  };
  // The interrupt address range, which no table translates.
  const MESSAGES = { base: 0xfee0_0000n, bytes: 0x0010_0000n };
  return { ...real, machine, KIND: "vtd", MESSAGES, HAS_VIOMMU: false };
});

describe("behind VT-d", async () => {
  await import("./config-space.test.ts");
  await import("./container.test.ts");
  await import("./device.test.ts");
  await import("./group.test.ts");
  await import("./pasid.test.ts");
  await import("./request-rules.test.ts");
});
