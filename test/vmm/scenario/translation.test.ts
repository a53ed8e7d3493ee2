// ATS, page requests and PASIDs by name, and what a device or host does not have asked for aloud.

import { describe, expect, it } from "vitest";
import { parseHost } from "../../../host/description.ts";
import type { ScenarioContext } from "../../../vmm/scenario/context.ts";
import { runScenario } from "../../../vmm/scenario/run-scenario.ts";
import { scenario } from "../../../vmm/scenario/scenario.ts";
import type { ScenarioVm } from "../../../vmm/scenario/vm.ts";

const FULL = "0000:00:01.0";
const PLAIN = "0000:00:02.0";
const NO_PRI = "0000:00:03.0";
const BEHIND_LITTLE = "0000:00:04.0";

const HOST = parseHost(
  {
    name: "services",
    iommus: [
      { name: "iommu0", kind: "riscv" },
      {
        name: "little",
        kind: "riscv",
        options: { capabilities: { ATS: false, T2GPA: false, PD8: false, PD17: false, PD20: false } },
      },
    ],
    devices: [
      { model: "edu", bdf: FULL, iommu: "iommu0", options: { pasidBits: 20, ats: true, pri: true } },
      { model: "edu", bdf: PLAIN, iommu: "iommu0" },
      { model: "edu", bdf: NO_PRI, iommu: "iommu0", options: { ats: true, pasidBits: 4 } },
      { model: "edu", bdf: BEHIND_LITTLE, iommu: "little", options: { pasidBits: 20, ats: true, pri: true } },
    ],
  },
  "services",
);

function run(body: (t: ScenarioContext) => void): void {
  const result = runScenario(scenario("s", body), { seed: 0, defaultHost: HOST, findHost: () => HOST });
  if (!result.passed) throw new Error(`${result.message}\n${result.stack}`);
}

function page(vm: ScenarioVm, iova = 0x1000n) {
  const gpa = vm.ram.allocate();
  const stage1 = vm.stage1();
  stage1.map(iova, gpa, 4096n);
  return { stage1, first: () => vm.ram.read(gpa, 1)[0] };
}

describe("a first stage by PASID", () => {
  it("is that PASID's alone, beside the one of requests without; each goes and comes by itself", () =>
    run((t) => {
      const vm = t.vm({ assign: [`${FULL}@00:02.0`] });
      const device = vm.device("00:02.0");
      const [whole, five, wide] = [page(vm), page(vm), page(vm)];
      device.installContext(whole.stage1);
      device.installContext(five.stage1, { pasid: 5 });
      const write = (byte: number, options = {}) => device.dmaWrite(0x1000n, Uint8Array.of(byte), options).ok;
      expect([write(1), write(2, { pasid: 5 })]).toEqual([true, true]);
      expect([whole.first(), five.first()]).toEqual([1, 2]);
      // Wider than eight bits: the directory grows a level, and everything in it stays.
      device.installContext(wide.stage1, { pasid: 0x12345 });
      expect([write(3), write(4, { pasid: 5 }), write(5, { pasid: 0x12345 })]).toEqual([true, true, true]);
      expect([whole.first(), five.first(), wide.first()]).toEqual([3, 4, 5]);
      expect(write(6, { pasid: 6 })).toBe(false);
      // §4.2: 266, the process context is not valid.
      vm.expectFault({ cause: 266, device, pasid: 6, write: true });
      device.installContext("blocked", { pasid: 5 });
      expect([write(7, { pasid: 5 }), write(8), write(9, { pasid: 0x12345 })]).toEqual([false, true, true]);
      vm.expectFault({ cause: 266, device, pasid: 5 });
      device.installContext("bypass", { pasid: 5 });
      expect(device.dmaWrite(vm.ram.base, Uint8Array.of(1), { pasid: 5 }).ok).toBe(true);
      device.installContext("blocked");
      expect([write(1), write(1, { pasid: 0x12345 })]).toEqual([false, false]);
      expect(vm.takeFaults().map(({ cause }) => cause)).toEqual([258, 258]);
    }));

  it("alone leaves requests without one blocked", () =>
    run((t) => {
      const vm = t.vm({ assign: [`${FULL}@00:02.0`] });
      const device = vm.device("00:02.0");
      const { stage1, first } = page(vm);
      device.installContext(stage1, { pasid: 1 });
      expect(device.dmaWrite(0x1000n, Uint8Array.of(3), { pasid: 1 }).ok).toBe(true);
      expect(first()).toBe(3);
      expect(device.dmaRead(0x1000n, 1).ok).toBe(false);
      // DPE: requests without a PASID are process 0 (§3.3 step 7), whose context is not valid.
      vm.expectFault({ cause: 266, device });
    }));

  it("is used by the device's own engine", () =>
    run((t) => {
      const vm = t.vm({ assign: [`${FULL}@00:02.0`] });
      const device = vm.device("00:02.0");
      const { stage1 } = page(vm);
      device.installContext(stage1, { pasid: 5 });
      device.edu.usePasid(5);
      device.edu.start({ iova: 0x1000n, length: 64, direction: "to-ram" });
      t.advance(10_000);
      expect(device.edu.outcome).toBe("done");
      device.edu.usePasid(6);
      device.edu.start({ iova: 0x1000n, length: 64, direction: "to-ram" });
      t.advance(10_000);
      expect(device.edu.outcome).toBe("refused");
      vm.expectFault({ cause: 266, device, pasid: 6 });
    }));
});

describe("page requests by name", () => {
  it.each([
    ["success", undefined, "done"],
    ["invalid", undefined, "page request failed"],
    ["failure", undefined, "page request failed"],
    ["success", 5, "done"],
  ] as const)("answered with %s (PASID %s) end the device's command: %s", (answer, pasid, outcome) =>
    run((t) => {
      const vm = t.vm({ assign: [`${FULL}@00:02.0`] });
      const device = vm.device("00:02.0");
      const stage1 = vm.stage1();
      device.installContext(stage1, { pageRequests: true, ...(pasid === undefined ? {} : { pasid }) });
      device.edu.translateFirst({ pageRequests: true });
      if (pasid !== undefined) device.edu.usePasid(pasid);
      device.edu.start({ iova: 0x7000n, length: 64, direction: "to-ram" });
      t.advance(20_000);
      const [request, ...more] = vm.takePageRequests();
      expect(more).toEqual([]);
      const { deviceId, address, write, last } = request!;
      expect({ deviceId, address, write, last, pasid: request!.pasid }).toEqual({
        ...{ deviceId: 0x10, address: 0x7000n, write: true, last: true },
        pasid: pasid ?? null,
      });
      if (answer === "success") stage1.map(0x7000n, vm.ram.allocate(), 4096n);
      request!.answer(answer);
      t.advance(100_000);
      expect(device.edu.outcome).toBe(outcome);
      vm.expectNoFault();
    }),
  );

  it("that the context does not allow are refused by it: ATS without page requests", () =>
    run((t) => {
      const vm = t.vm({ assign: [`${FULL}@00:02.0`] });
      const device = vm.device("00:02.0");
      const { stage1 } = page(vm);
      device.installContext(stage1, { ats: true });
      device.edu.translateFirst();
      device.edu.start({ iova: 0x1000n, length: 64, direction: "to-ram" });
      t.advance(10_000);
      expect(device.edu.outcome).toBe("done");
      // Without ats the context does not have it, and an ATS request is refused.
      device.installContext(stage1);
      device.edu.start({ iova: 0x1000n, length: 64, direction: "to-ram" });
      t.advance(10_000);
      expect(device.edu.outcome).toBe("translation refused");
    }));
});

describe("what a device, its host or its vIOMMU lacks fails aloud:", () => {
  type Ask = (vm: ScenarioVm) => unknown;
  const device = (vm: ScenarioVm) => vm.device("00:02.0");
  const table: [string, string, Ask, RegExp][] = [
    ["a PASID on an edu without pasidBits", PLAIN, (vm) => device(vm).edu.usePasid(5), /has no PASIDs.*pasidBits/],
    ["a first stage for one", PLAIN, (vm) => device(vm).installContext(vm.stage1(), { pasid: 5 }), /has no PASIDs/],
    ["a DMA with one", PLAIN, (vm) => device(vm).dmaWrite(0n, new Uint8Array(1), { pasid: 5 }), /has no PASIDs/],
    ["a walk with one", PLAIN, (vm) => device(vm).walk(0n, { pasid: 5 }), /has no PASIDs/],
    [
      "a PASID that is too wide",
      NO_PRI,
      (vm) => device(vm).edu.usePasid(16),
      /PASID 16 is none of its own, which are 0 to 15/,
    ],
    ["a first stage for that", NO_PRI, (vm) => device(vm).installContext("bypass", { pasid: 16 }), /1 to 15/],
    ["a first stage for PASID 0", FULL, (vm) => device(vm).installContext("bypass", { pasid: 0 }), /PASID 0 is none/],
    [
      "a first stage for a PASID that is no number",
      FULL,
      (vm) => device(vm).installContext("bypass", { pasid: 1.5 }),
      /PASID 1.5/,
    ],
    ["ATS", PLAIN, (vm) => device(vm).installContext("bypass", { ats: true }), /has no ATS.*ats: true/],
    ["translateFirst without ATS", PLAIN, (vm) => device(vm).edu.translateFirst(), /has no ATS.*ats: true/],
    [
      "page requests",
      NO_PRI,
      (vm) => device(vm).installContext("bypass", { pageRequests: true }),
      /has no page requests/,
    ],
    [
      "translateFirst with page requests",
      NO_PRI,
      (vm) => device(vm).edu.translateFirst(true),
      /has no page requests.*pri/,
    ],
    ["misbehaviour", FULL, (vm) => device(vm).edu.misbehave(1), /has no misbehaviour.*misbehaviour: true/],
    [
      "PASIDs before an IOMMU without",
      BEHIND_LITTLE,
      (vm) => device(vm).installContext("bypass", { pasid: 1 }),
      /has no PASIDs/,
    ],
    [
      "ATS before an IOMMU without",
      BEHIND_LITTLE,
      (vm) => device(vm).installContext("bypass", { ats: true }),
      /has no ATS/,
    ],
    ["names beside raw words", FULL, (vm) => device(vm).installContext({ tc: 1n }, { ats: true }), /raw words/],
  ];
  it.each(table)("%s", (_what, host, ask, message) =>
    run((t) => {
      const vm = t.vm({ assign: [`${host}@00:02.0`] });
      expect(() => ask(vm)).toThrow(message);
    }),
  );

  it.each([
    ["ats", { ats: true }, /cannot use ATS: the guest's IOMMU does not offer it/],
    ["pasid", { pasid: 1 }, /cannot use PASIDs: the guest's IOMMU does not offer it/],
  ] as const)("%s where the VM's configuration has taken it from the vIOMMU", (name, options, message) =>
    run((t) => {
      const vm = t.vm({ assign: [`${FULL}@00:02.0`], configuration: { [name]: false } });
      expect(() => device(vm).installContext("bypass", options)).toThrow(message);
    }),
  );
});
