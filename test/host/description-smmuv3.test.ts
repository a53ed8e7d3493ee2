// What a host's description says of SMMUv3s alone: deviations of their driver.

import { describe, expect, it } from "vitest";
import { Clock } from "../../host/base/clock.ts";
import { Trace } from "../../host/base/trace.ts";
import { parseHost } from "../../host/description.ts";
import { Host } from "../../host/host.ts";
import { HARDWARE_KINDS } from "../../host/hw/iommu/kinds.ts";
import type { IommuDriverParts } from "../../host/kernel/iommu/hardware.ts";
import { DRIVER_KINDS } from "../../host/kernel/iommu/kinds.ts";

describe("a host description", () => {
  it("may ask the kernel's driver of a kind to deviate from Linux; by default none does", () => {
    const asked = (deviations: string[]): string[] => {
      let seen: string[] = [];
      const smmuv3 = (parts: IommuDriverParts) => {
        seen = [...parts.deviations];
        return DRIVER_KINDS.smmuv3!(parts);
      };
      const document = { name: "x", iommus: [{ name: "i", kind: "smmuv3" }], deviations };
      const clock = new Clock();
      const kinds = { hardware: HARDWARE_KINDS, drivers: { smmuv3 } };
      new Host(parseHost(document, "test"), { clock, trace: new Trace(clock), kinds });
      return seen;
    };
    expect(asked(["smmuv3-relay-table-fetches"])).toEqual(["smmuv3-relay-table-fetches"]);
    expect(asked([])).toEqual([]);
  });

  it("that asks for one that there is not is told which there are", () => {
    expect(() => parseHost({ name: "x", deviations: ["smmuv3-relay-table-fetches", "smmuv3-magic"] }, "test")).toThrow(
      /deviations\.1: no deviation "smmuv3-magic" \(there is smmuv3-relay-table-fetches, /,
    );
  });
});
