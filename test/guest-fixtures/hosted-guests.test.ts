// What holds of guests other than the default one on every kind of IOMMU, nested over the modelled host's.

import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { buildFixtures } from "../../guest-fixtures/build.mjs";
import { VIOMMU_KINDS } from "../../vmm/viommu/kinds.ts";
import { soundImage } from "../vmm/vcpu/component/scripted-machine.ts";
import { bootHosted, type HostedOptions, type HostedRun } from "./hosted-machine.ts";

const booted = async (name: string, options: HostedOptions): Promise<HostedRun> =>
  bootHosted(await soundImage(readFileSync((await buildFixtures())[name]!)), options);

describe.each(Object.entries(VIOMMU_KINDS))("on %s", (_, kind) => {
  it("two of one guest have each its own device, queue and interrupt; equal tags do not mix", async () => {
    const { output, outcome } = await booted("two-iommus", {
      kind,
      assign: [
        ["0000:00:01.0", 0x10],
        ["0000:80:01.0", 0x08],
      ],
    });
    expect(output).toContain("copy: equal IOVAs and tags, each device its own page\n");
    expect(outcome).toEqual({ kind: "exited", status: 0 });
  });

  it("interrupt pins of assigned devices reach the guest as wires, pending until the device is quiet", async () => {
    const { output, outcome } = await booted("edu-intx", { kind });
    expect(output).toMatch(/^00:01\.0 raised wire (\d+) 3 times\n00:02\.0 raised wire (?!\1)\d+ 3 times\n$/);
    expect(outcome).toEqual({ kind: "exited", status: 0 });
  });
});
