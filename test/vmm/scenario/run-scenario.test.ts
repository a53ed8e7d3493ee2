// What the scenario runner makes of scenarios that go wrong, in the scenario or in the host.

import { describe, expect, it } from "vitest";
import { builtInHosts, DEFAULT_HOST } from "../../../host/built-in-hosts.ts";
import { VIOMMU_BASE } from "../../../vmm/memory-map.ts";
import type { ScenarioContext } from "../../../vmm/scenario/context.ts";
import { runScenario, type ScenarioResult } from "../../../vmm/scenario/run-scenario.ts";
import { isScenario, scenario } from "../../../vmm/scenario/scenario.ts";
import { HostRefusal } from "../../../vmm/vfio/guest-address-space.ts";

const HOST = builtInHosts.find(({ name }) => name === DEFAULT_HOST)!;
const ONE = "0000:00:01.0@00:02.0";
const TWO = "0000:00:02.0@00:01.0";

function run(body: (t: ScenarioContext) => void): ScenarioResult {
  return runScenario(scenario("s", body), { seed: 0, defaultHost: HOST, findHost: () => HOST });
}

function refused(act: () => void): void {
  expect(act).toThrow(HostRefusal);
}

describe("a scenario", () => {
  it("with an asynchronous body has failed: nobody waits for what it expects", () => {
    const result = run((async (t: ScenarioContext) => {
      await Promise.resolve();
      t.expect(false, "never looked at");
    }) as (t: ScenarioContext) => void);
    expect(result.passed).toBe(false);
    expect(result.message).toMatch(/synchronous/);
  });

  it("gets back the devices of a VM that the host refused half-way", () => {
    const result = run((t) => {
      t.host().inject(["ioctl:VFIO_DEVICE_BIND_IOMMUFD@2=ENOMEM"]);
      refused(() => t.vm({ assign: [ONE, TWO] }));
      t.equal(t.host().liveObjects, 0, "objects in the host");
      t.host().inject([]);
      t.vm({ assign: [ONE, TWO] });
    });
    expect(result.message).toBe("");
  });

  it("gets back the address space of a VM whose RAM the host did not map", () => {
    const result = run((t) => {
      t.host().inject(["ioctl:IOMMU_IOAS_MAP@1=ENOMEM"]);
      refused(() => t.vm());
      t.equal(t.host().liveObjects, 0, "objects in the host");
    });
    expect(result.message).toBe("");
  });

  it("sees no vIOMMU that was made for a device which the host then refused", () => {
    const result = run((t) => {
      const vm = t.vm();
      const { assignment, machine } = vm.machine;
      t.host().inject(["ioctl:IOMMU_VDEVICE_ALLOC@1=ENOMEM"]);
      refused(() => vm.assign(ONE));
      t.equal(assignment.viommus.length, 0, "vIOMMUs");
      t.equal(machine.bus.find(VIOMMU_BASE), null, "what answers at the vIOMMU's place");
      vm.assign(ONE);
      t.equal(assignment.viommus.length, 1, "vIOMMUs");
    });
    expect(result.message).toBe("");
  });

  it("is told of a refusal at every call of an assignment, and nothing is left", () => {
    let refusals = 0;
    for (let nth = 1; nth <= 30; nth++) {
      const result = run((t) => {
        t.host().inject([`ioctl:VFIO_DEVICE_GET_REGION_INFO@${nth}=EIO`]);
        try {
          t.vm({ assign: [ONE] });
        } catch (error) {
          if (!(error instanceof HostRefusal)) throw error;
          refusals++;
        }
      });
      expect([nth, result.message]).toEqual([nth, ""]);
    }
    // Configuration space and six BARs: whichever the host refuses to describe, the assignment says so.
    expect(refusals).toBe(7);
  });

  it("cannot let time pass that is no length of time", () => {
    for (const ns of [Number.NaN, Number.POSITIVE_INFINITY, -1]) {
      expect(run((t) => t.advance(ns)).message).toMatch(/advance/);
    }
  });

  it("is only what has a name, a body and options", () => {
    expect(isScenario({ kind: "nestbox-scenario" })).toBe(false);
    expect(isScenario(scenario("s", () => {}))).toBe(true);
  });
});
