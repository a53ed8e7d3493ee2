// A component guest with an edu on no bus, over the modelled host: what the platform tells it is all it knows. Where pages come on demand:
// platform-edu-smmuv3.test.ts.

import { readFileSync } from "node:fs";
import { beforeAll, describe, expect, it } from "vitest";
import { buildFixtures } from "../../guest-fixtures/build.mjs";
import { parseHost } from "../../host/description.ts";
import type { PreparedComponent } from "../../vmm/vcpu/component/prepare.ts";
import { VIOMMU_KINDS } from "../../vmm/viommu/kinds.ts";
import { soundImage } from "../vmm/vcpu/component/scripted-machine.ts";
import { bootHosted } from "./hosted-machine.ts";

let guest: PreparedComponent;
beforeAll(async () => {
  const images = await buildFixtures();
  guest = await soundImage(readFileSync(images["platform-edu"]!));
});

const HOST = parseHost(
  {
    name: "platform",
    iommus: [{ name: "iommu0", kind: "riscv" }],
    platform: [{ model: "edu", name: "edu0", iommu: "iommu0", deviceId: 0x1234 }],
  },
  "test",
);
describe("the guest of an edu on no bus", () => {
  it("copies through its first stage on a RISC-V IOMMU, which lets nothing wait", () => {
    const platform = [["edu0", 0x4567]] as const;
    const { output, outcome } = bootHosted(guest, { kind: VIOMMU_KINDS.riscv, host: HOST, platform, assign: [] });
    expect(output).toBe("edu on no bus 0, id 0x4567: copied 4096 bytes, wire 992\nthe IOMMU lets nothing wait\n");
    expect(outcome).toEqual({ kind: "exited", status: 0 });
  });
});
