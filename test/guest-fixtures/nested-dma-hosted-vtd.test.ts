// The default guest with a VT-d unit on the machine that `nestbox boot --viommu vtd` makes: nested over the modelled host's unit. All steps hold; what its
// first stage refuses moves no byte and is heard of by nobody, as on Linux; and it fails when something underneath is broken on purpose.

import { readFileSync } from "node:fs";
import { beforeAll, describe, expect, it } from "vitest";
import { buildFixtures } from "../../guest-fixtures/build.mjs";
import { IOMMU_HWPT_INVALIDATE } from "../../host/uapi/iommufd.ts";
import type { PreparedComponent } from "../../vmm/vcpu/component/prepare.ts";
import { VTD } from "../../vmm/viommu/vtd/kind.ts";
import { soundImage } from "../vmm/vcpu/component/scripted-machine.ts";
import { bootHosted, type HostedOptions, type HostedRun } from "./hosted-machine.ts";

const SOURCE_IOVA = 0x12_3456_7000n;
/** struct iommu_hwpt_vtd_s1_invalidate: addr, npages, flags. */
const ENTRY_BYTES = 24;

let guest: PreparedComponent;
beforeAll(async () => {
  guest = await soundImage(readFileSync((await buildFixtures())["nested-dma"]!));
});

const boot = (options: HostedOptions = {}): HostedRun => bootHosted(guest, { kind: VTD, ...options });

/** Changes the host's answer to the guest's page invalidations: `change` has each entry's address, npages at 8. */
function tampered(change: (entry: DataView) => void): NonNullable<HostedOptions["tamper"]> {
  return (request, structure, memory) => {
    if (request !== IOMMU_HWPT_INVALIDATE) return;
    const count = structure.getUint32(24, true);
    const entries = memory.bytes(structure.getBigUint64(8, true), count * ENTRY_BYTES);
    for (let i = 0; i < count; i++)
      change(new DataView(entries.buffer, entries.byteOffset + i * ENTRY_BYTES, ENTRY_BYTES));
  };
}

describe("the default guest, nested over a VT-d unit", () => {
  it("all its steps hold with its two devices' ids crossed over, in silence", () => {
    const { output, outcome } = boot();
    expect(output).toMatch(/\ndone: all steps hold\n$/);
    expect(output).toContain("\nunmap: nothing is heard; no byte moved, the device's message came\n");
    expect(output).toContain("\npermissions: nothing is heard on a page mapped for reading\n");
    expect(output).toContain("\noutside: nothing is heard; no byte moved\n");
    expect(outcome).toEqual({ kind: "exited", status: 0 });
  });

  it("its tables are walked by the hardware through stage 2, and its faults are the host's", () => {
    const { events } = boot({ traced: true });
    const second = events.filter(
      (event) => event.type === "walk" && event.where === "host" && event.table === "stage2",
    );
    expect(second.length).toBeGreaterThan(0);
    for (const step of second) expect(step).toMatchObject({ kind: "vtd", space: "spa" });
    const places = events.flatMap((event) => (event.type === "fault" ? [event.where] : []));
    // Two of pages that are not mapped, one that is not writable, one of bypass gone again, two outside memory, one a device that is blocked, one by an empty
    // root table.
    expect(places.filter((place) => place === "hardware")).toHaveLength(8);
    expect(places).not.toContain("guest");
  });

  it("two runs give the same trace, event by event", () => {
    const [a, b] = [boot({ traced: true }), boot({ traced: true })];
    expect(a.events.length).toBeGreaterThan(1000);
    expect(b.events).toEqual(a.events);
    expect(b.virtualNs).toBe(a.virtualNs);
  });
});

describe("the default guest fails", () => {
  it("when the remap's forwarded invalidation is one of another page", () => {
    let changed = 0;
    const tamper = tampered((entry) => {
      if (changed > 0 || entry.getBigUint64(0, true) !== SOURCE_IOVA || entry.getBigUint64(8, true) !== 1n) return;
      entry.setBigUint64(0, SOURCE_IOVA + 4096n, true);
      changed++;
    });
    const { output, outcome } = boot({ tamper });
    expect(changed).toBe(1);
    expect(output).toMatch(
      /FAILED: what was read after a PASID-based IOTLB invalidation and a wait differs at byte 0\n$/,
    );
    expect(outcome).toEqual({ kind: "exited", status: 1 });
  });
});
