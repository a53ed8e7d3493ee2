// Failures on purpose: the rules as they are written, and what a plan made of them does to a host.

import { describe, expect, it } from "vitest";
import { Clock } from "../../../host/base/clock.ts";
import { Trace, type TracedEvent } from "../../../host/base/trace.ts";
import { InjectionPlan, InjectionSyntaxError } from "../../../host/kernel/injection-plan.ts";
import { EBUSY, EFAULT, EINVAL, ENOMEM } from "../../../host/uapi/errno.ts";
import * as uapi from "../../../host/uapi/iommufd.ts";
import { MockHost } from "./iommufd/mock-host.ts";

function calls(plan: InjectionPlan, name: string, count: number): number[] {
  return Array.from({ length: count }, () => plan.ioctl(name));
}

describe("an injection rule", () => {
  it("fails calls by name: all, the nth, the nth and later", () => {
    expect(calls(new InjectionPlan(["ioctl:A=EBUSY"]), "A", 2)).toEqual([-EBUSY, -EBUSY]);
    expect(calls(new InjectionPlan(["ioctl:A@2=EBUSY"]), "A", 3)).toEqual([0, -EBUSY, 0]);
    expect(calls(new InjectionPlan(["ioctl:A@2+=EBUSY"]), "A", 3)).toEqual([0, -EBUSY, -EBUSY]);
    expect(calls(new InjectionPlan(["ioctl:A=EBUSY"]), "B", 2)).toEqual([0, 0]);
  });

  it("counts allocations of all kinds together, or of one", () => {
    const all = new InjectionPlan(["allocation@3"]);
    expect(["ioas", "domain", "ioas"].map((kind) => all.allocation(kind))).toEqual([false, false, true]);
    const one = new InjectionPlan(["allocation:ioas@2"]);
    expect(["ioas", "domain", "ioas"].map((kind) => one.allocation(kind))).toEqual([false, false, true]);
  });

  it("with a chance falls the same way for the same seed, about as often as it says", () => {
    const fallen = (seed: number) => calls(new InjectionPlan(["ioctl:A%20=EINVAL"], seed), "A", 1000);
    expect(fallen(5)).toEqual(fallen(5));
    expect(fallen(5)).not.toEqual(fallen(6));
    const often = fallen(5).filter((result) => result < 0).length;
    expect(often).toBeGreaterThan(150);
    expect(often).toBeLessThan(250);
  });

  it("that cannot be understood is refused with a sentence that quotes it", () => {
    for (const rule of [
      "",
      "ioctl",
      "ioctl:A",
      "ioctl:A=ENOTHING",
      "ioctl:A@0=EINVAL",
      "allocation%101",
      "allocation=ENOMEM",
      "event:other",
      "erratum:other",
      "erratum:read-only-stage2@2",
      "x:y",
      "ioctl:A=delay",
      "ioctl:A=EBUSY/5",
      "command:IOTINVAL.VMA",
      "command=drop",
      "allocation:ioas=drop",
    ]) {
      expect(() => new InjectionPlan([rule])).toThrow(InjectionSyntaxError);
      expect(() => new InjectionPlan([rule])).toThrow(`"${rule}"`);
    }
  });

  it("lets a call answer success without a deed, take time, or see another bit", () => {
    const plan = new InjectionPlan(["ioctl:A@1=drop", "ioctl:A@2=delay/500", "ioctl:A@3=corrupt"]);
    const seen = Array.from({ length: 4 }, () => {
      expect(plan.ioctl("A")).toBe(0);
      return plan.tampering === null ? null : [plan.tampering.kind, plan.tampering.delayNs];
    });
    expect(seen).toEqual([["drop", 0], ["delay", 500], ["corrupt", 0], null]);
    expect(plan.injected).toBe(3);
  });

  it("takes commands of the host's IOMMU as done", () => {
    const plan = new InjectionPlan(["command:IOTINVAL.VMA@2=drop"]);
    expect(plan.skipsCommands).toBe(true);
    const names = ["IOTINVAL.VMA", "IOFENCE.C", "IOTINVAL.VMA", "IOTINVAL.VMA"];
    expect(names.map((command) => plan.skipCommand(command))).toEqual([false, false, true, false]);
  });

  it("that never came to anything is named", () => {
    const plan = new InjectionPlan(["ioctl:A=EINVAL", "event:fault@1"]);
    plan.ioctl("A");
    expect([plan.injected, plan.unused]).toEqual([1, ["event:fault@1"]]);
  });

  it("is a trace event when it strikes", () => {
    const trace = new Trace(new Clock());
    const events: TracedEvent[] = [];
    trace.addSink({ event: (event) => events.push(event) });
    new InjectionPlan(["allocation:ioas@1"], 0, trace).allocation("ioas");
    expect(events).toMatchObject([{ type: "injection", point: "allocation", name: "ioas", rule: "allocation:ioas@1" }]);
  });
});

describe("a host with an injection plan", () => {
  it("fails the named call before it does anything", () => {
    const host = new MockHost();
    const user = host.process();
    host.kernel.injector = new InjectionPlan(["ioctl:IOMMU_IOAS_ALLOC@2=EBUSY"]);
    const alloc = () => user.result(uapi.IOMMU_IOAS_ALLOC, uapi.iommuIoasAlloc, {});
    expect([alloc(), alloc(), alloc()]).toEqual([0, -EBUSY, 0]);
    expect(host.kernel.live.of("ioas")).toBe(2);
  });

  it("fails an allocation deep in a call, which leaves nothing behind", () => {
    const host = new MockHost();
    const user = host.process();
    const bound = user.bind(host.addDevice());
    const ioas = user.ioas();
    const before = host.kernel.live.total;
    const fields = user.hwptFields(bound.id, ioas);
    let nth = 1;
    // Every allocation of the call fails once, until it gets through.
    for (; nth < 20; nth++) {
      host.kernel.injector = new InjectionPlan([`allocation@${nth}`]);
      const result = user.result(uapi.IOMMU_HWPT_ALLOC, uapi.iommuHwptAlloc, fields);
      if (result === 0) break;
      expect([-ENOMEM, -EFAULT]).toContain(result);
      expect(host.kernel.live.total).toBe(before);
    }
    expect(nth).toBeGreaterThan(3);
    expect(nth).toBeLessThan(20);
  });

  it("refuses read-only mappings in a nest parent if its hardware has that erratum", () => {
    const host = new MockHost();
    const user = host.process();
    const bound = user.bind(host.addDevice());
    const ioas = user.ioas();
    user.hwpt(bound.id, ioas, uapi.IOMMU_HWPT_ALLOC_NEST_PARENT);
    const va = user.process.memory.allocate(4096);
    const map = (flags: number, iova: bigint) => {
      const fields = { flags: flags | 1, ioas_id: ioas, user_va: va, length: 4096n, iova };
      return user.result(uapi.IOMMU_IOAS_MAP, uapi.iommuIoasMap, fields);
    };
    expect(map(uapi.IOMMU_IOAS_MAP_READABLE, 0x100_0000n)).toBe(0);
    host.kernel.injector = new InjectionPlan(["erratum:read-only-stage2"]);
    expect(map(uapi.IOMMU_IOAS_MAP_READABLE, 0x100_1000n)).toBe(-EINVAL);
    expect(map(uapi.IOMMU_IOAS_MAP_READABLE | uapi.IOMMU_IOAS_MAP_WRITEABLE, 0x100_1000n)).toBe(0);
    expect(host.kernel.frames.pins.total).toBe(2);
  });
});
