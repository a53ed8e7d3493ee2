// A component guest with an edu on no bus behind an SMMUv3, over the modelled host: its device's pages come on demand, each while a transaction
// waits. And the guest notices when something underneath is broken on purpose.

import { readFileSync } from "node:fs";
import { beforeAll, describe, expect, it } from "vitest";
import { buildFixtures } from "../../guest-fixtures/build.mjs";
import { parseHost } from "../../host/description.ts";
import { IOMMU_HWPT_ALLOC, iommuHwptAlloc } from "../../host/uapi/iommufd.ts";
import type { PreparedComponent } from "../../vmm/vcpu/component/prepare.ts";
import { VIOMMU_KINDS } from "../../vmm/viommu/kinds.ts";
import { soundImage } from "../vmm/vcpu/component/scripted-machine.ts";
import { bootHosted, type HostedOptions } from "./hosted-machine.ts";

let guest: PreparedComponent;
beforeAll(async () => {
  const images = await buildFixtures();
  guest = await soundImage(readFileSync(images["platform-edu"]!));
});

const onHost = (kind: string, stalls: readonly boolean[]) =>
  parseHost(
    {
      name: "platform",
      iommus: [{ name: "iommu0", kind }],
      platform: stalls.map((canStall, index) => ({
        ...{ model: "edu", name: `edu${index}`, iommu: "iommu0", deviceId: 0x1234 + index, canStall },
      })),
    },
    "test",
  );
const COPIED = /^edu on no bus 0, id 0x4567: copied 4096 bytes, wire 992\n/;

function boot(options: HostedOptions) {
  return bootHosted(guest, { platform: [["edu0", 0x4567]], assign: [], ...options });
}

describe("the guest of an edu on no bus", () => {
  it("gets its pages on demand on an SMMUv3", () => {
    const { output, outcome } = boot({ kind: VIOMMU_KINDS.smmuv3 });
    expect(output).toMatch(COPIED);
    expect(output).toMatch(/\non demand: two pages mapped while edu on no bus 0 waited, one refused\n$/);
    expect(outcome).toEqual({ kind: "exited", status: 0 });
  });

  it("is told that nothing waits where the host's firmware does not say so", () => {
    const { output, outcome } = boot({ kind: VIOMMU_KINDS.smmuv3, host: onHost("smmuv3", [false]) });
    expect(output).toMatch(/\nthe IOMMU lets nothing wait\n$/);
    expect(outcome).toEqual({ kind: "exited", status: 0 });
  });

  it("notices a VMM whose first stages have no fault queue: what would wait ends at once", () => {
    const tamper: HostedOptions["tamper"] = (request, structure) => {
      const { flags } = iommuHwptAlloc.fields;
      // IOMMU_HWPT_FAULT_ID_VALID.
      if (request === IOMMU_HWPT_ALLOC)
        structure.setUint32(flags.offset, structure.getUint32(flags.offset, true) & ~4, true);
    };
    const { output, outcome } = boot({ kind: VIOMMU_KINDS.smmuv3, tamper });
    expect(output).toMatch(/FAILED: /);
    expect(outcome).toEqual({ kind: "exited", status: 1 });
  });
});
