// Devices of one iommu group in a VM: one ATTACH moves all of them (Linux: iommufd/device.c, iommufd_hw_pagetable_attach; iommu.c,
// __iommu_group_set_domain), so contexts of their own cannot hold. Refused, or by request one stream.

import { describe, expect, it } from "vitest";
import type { TracedEvent } from "../../host/base/trace.ts";
import { iommuGroups, parseHost } from "../../host/description.ts";
import { ComponentMachine } from "../../vmm/component-machine.ts";
import type { ScenarioContext } from "../../vmm/scenario/context.ts";
import { runScenario } from "../../vmm/scenario/run-scenario.ts";
import { scenario } from "../../vmm/scenario/scenario.ts";
import type { ScenarioDevice, ScenarioVm } from "../../vmm/scenario/vm.ts";
import { trivialKind } from "../kinds/viommu.ts";

const A = "0000:00:01.0";
const B = "0000:00:02.0";
const C = "0000:00:03.0";

const HOST = parseHost(
  {
    name: "shared",
    iommus: [
      { name: "iommu0", kind: "riscv" },
      { name: "iommu1", kind: "riscv" },
    ],
    devices: [
      { model: "edu", bdf: A, iommu: "iommu0", group: 7, options: { ats: true, pri: true } },
      { model: "edu", bdf: B, iommu: "iommu0", group: 7 },
      { model: "edu", bdf: C, iommu: "iommu0" },
    ],
  },
  "shared",
);

const GROUP = `iommu group 0 (${A}, ${B})`;

function run(body: (t: ScenarioContext) => void): void {
  const result = runScenario(scenario("s", body), { seed: 0, defaultHost: HOST, findHost: () => HOST });
  if (!result.passed) throw new Error(`${result.message}\n${result.stack}`);
}

function refusal(act: () => void): string {
  try {
    act();
  } catch (error) {
    return (error as Error).message;
  }
  return "taken";
}

/** A first stage that maps 0x1000 to a page of its own. */
function stage1(vm: ScenarioVm) {
  const table = vm.stage1();
  const page = vm.ram.allocate();
  table.map(0x1000n, page, 4096n);
  return { table, page, first: () => vm.ram.read(page, 1)[0] };
}

const write = (device: ScenarioDevice, byte: number) => device.dmaWrite(0x1000n, Uint8Array.of(byte)).ok;
const causes = (vm: ScenarioVm) => vm.takeFaults().map(({ cause, deviceId }) => [cause, deviceId]);
const groupEvents = (events: readonly TracedEvent[]) =>
  events.flatMap((event) => (event.type === "group" ? [[event.contexts, event.devices, event.withheld]] : []));

describe("without leave to share, a VM", () => {
  it("refuses a device of a group of two in one line that names the group and its members, and keeps nothing of it", () =>
    run((t) => {
      for (const assign of [[`${A}@00:02.0`], [`${A}@00:02.0`, `${B}@00:03.0`]]) {
        const message = refusal(() => t.vm({ assign }));
        expect(message).toContain(GROUP);
        expect(message).toContain(`guest device 00:02.0 (host ${A})`);
        expect(message).toContain("--allow-shared-group");
        expect(message).not.toContain("\n");
        expect(t.host().liveObjects).toBe(0);
      }
    }));

  it("refuses it at hot-plug, too, and goes on with what it has", () =>
    run((t) => {
      const vm = t.vm({ assign: [`${C}@00:04.0`] });
      expect(refusal(() => vm.assign(`${B}@00:03.0`))).toContain(GROUP);
      const { table, first } = stage1(vm);
      vm.device("00:04.0").installContext(table);
      expect(write(vm.device("00:04.0"), 5)).toBe(true);
      expect(first()).toBe(5);
    }));
});

describe("with leave to share, a group of the host", () => {
  it("of which one function is assigned works for it, the other is held; unplugged, both are free again", () =>
    run((t) => {
      const vm = t.vm({ assign: [`${A}@00:02.0`], allowSharedGroup: true });
      expect(vm.machine.assignment.held).toEqual([B]);
      const device = vm.device("00:02.0");
      const { table, first } = stage1(vm);
      device.installContext(table);
      expect(device.disposition).toBe("nested");
      expect(write(device, 9)).toBe(true);
      expect(first()).toBe(9);
      expect(causes(vm)).toEqual([]);
      expect(t.messages).toEqual([]);
      vm.unassign(device);
      expect(vm.machine.assignment.held).toEqual([]);
      vm.assign(`${B}@00:03.0`).installContext(table);
      expect(vm.machine.assignment.held).toEqual([A]);
      expect(write(vm.device("00:03.0"), 10)).toBe(true);
    }));

  it("has one context for all: a function that has none does no DMA, and has its own when it gets the same", () =>
    run((t) => {
      const events = t.watch();
      const vm = t.vm({ assign: [`${A}@00:02.0`, `${B}@00:02.1`], allowSharedGroup: true });
      const [a, b] = [vm.device("00:02.0"), vm.device("00:02.1")];
      const { table, first } = stage1(vm);
      a.installContext(table);
      expect([write(a, 1), write(b, 2), first()]).toEqual([true, false, 1]);
      // The hardware never saw it, so there is no record; the trace says why.
      expect(causes(vm)).toEqual([]);
      expect(groupEvents(events).at(-1)).toEqual(["one", "00:02.0 00:02.1", "00:02.1"]);
      b.installContext(table);
      expect([write(b, 3), first(), write(a, 4), first()]).toEqual([true, 3, true, 4]);
      expect(groupEvents(events).at(-1)).toEqual(["one", "00:02.0 00:02.1", ""]);
      // And one that loses it does none any more.
      a.installContext("blocked");
      expect([write(a, 5), write(b, 6), first()]).toEqual([false, true, 6]);
      b.installContext("blocked");
      expect([write(a, 7), write(b, 8), first()]).toEqual([false, false, 6]);
      expect(causes(vm)).toEqual([
        [258, 0x10],
        [258, 0x11],
      ]);
      expect(t.messages).toEqual([]);
    }));

  it("whose functions get contexts that differ does no DMA: 259 for both, a line, a trace event; until they agree", () =>
    run((t) => {
      const events = t.watch();
      const vm = t.vm({ assign: [`${A}@00:02.0`, `${B}@00:03.0`], allowSharedGroup: true });
      const [a, b] = [vm.device("00:02.0"), vm.device("00:03.0")];
      const [mine, other] = [stage1(vm), stage1(vm)];
      a.installContext(mine.table);
      expect(write(a, 1)).toBe(true);
      b.installContext(other.table);
      expect(t.messages).toHaveLength(1);
      expect(t.messages[0]).toContain(`${GROUP} is one stream`);
      expect(t.messages[0]).toContain("00:02.0 and 00:03.0 differ");
      expect(t.messages[0]).toContain("259");
      expect(groupEvents(events).at(-1)).toEqual(["differ", "00:02.0 00:03.0", ""]);
      expect([a.disposition, b.disposition]).toEqual(["blocked", "blocked"]);
      expect([write(a, 2), write(b, 3), mine.first(), other.first()]).toEqual([false, false, 1, 0]);
      expect(causes(vm)).toEqual([
        [259, 0x10],
        [259, 0x18],
      ]);
      b.installContext(mine.table);
      expect([write(a, 4), mine.first(), write(b, 5), mine.first(), other.first()]).toEqual([true, 4, true, 5, 0]);
      b.installContext("bypass");
      expect([write(a, 6), write(b, 7)]).toEqual([false, false]);
      a.installContext("blocked");
      expect([b.disposition, write(a, 8)]).toEqual(["bypass", false]);
    }));

  it("takes two contexts that change in one batch as the guest left them, not as it passed", () =>
    run((t) => {
      const vm = t.vm({ assign: [`${A}@00:02.0`, `${B}@00:03.0`], allowSharedGroup: true });
      const [mine, other] = [stage1(vm), stage1(vm)];
      for (const device of vm.devices) device.installContext(mine.table);
      const words = { tc: 1n, fsc: other.table.fsc, ta: BigInt(other.table.pscid) << 12n };
      for (const device of vm.devices) vm.iommu.writeContext(device.guestId, words);
      vm.iommu.command("IODIR.INVAL_DDT", { DV: 1, DID: vm.devices[0]!.guestId });
      vm.iommu.command("IODIR.INVAL_DDT", { DV: 1, DID: vm.devices[1]!.guestId });
      vm.iommu.command("IOTINVAL.VMA");
      vm.iommu.fence();
      expect([write(vm.devices[0]!, 1), other.first(), write(vm.devices[1]!, 2), other.first()]).toEqual([
        true,
        1,
        true,
        2,
      ]);
      expect(t.messages).toEqual([]);
    }));

  it("uses of ATS what all its functions can do, so that equal words are equal contexts", () =>
    run((t) => {
      const vm = t.vm({ assign: [`${A}@00:02.0`, `${B}@00:03.0`], allowSharedGroup: true });
      const { table, first } = stage1(vm);
      const EN_ATS = 2n;
      for (const device of vm.devices) device.installContext(table, { tc: EN_ATS });
      for (const device of vm.devices)
        expect([device.disposition, write(device, 7), first()]).toEqual(["nested", true, 7]);
      expect(t.messages).toEqual([]);
    }));

  it("takes a function that is hot-plugged with another context already there, and gives it back", () =>
    run((t) => {
      const vm = t.vm({ assign: [`${A}@00:02.0`], allowSharedGroup: true });
      const { table, first } = stage1(vm);
      const a = vm.device("00:02.0");
      a.installContext(table);
      const b = vm.assign(`${B}@00:03.0`);
      expect(vm.machine.assignment.held).toEqual([]);
      expect([write(a, 1), write(b, 2), first()]).toEqual([true, false, 1]);
      b.installContext(table);
      vm.unassign(a);
      expect(vm.machine.assignment.held).toEqual([A]);
      expect([write(b, 3), first(), write(a, 4), first()]).toEqual([true, 3, false, 3]);
      vm.unassign(b);
      expect(vm.machine.assignment.held).toEqual([]);
    }));

  it("is kept behind one vIOMMU: another for its second function is refused in one line", () =>
    run((t) => {
      const vm = t.vm({ assign: [`${A}@00:02.0/left`], allowSharedGroup: true });
      const message = refusal(() => vm.assign(`${B}@00:03.0/right`));
      expect(message).toContain(GROUP);
      expect(message).toContain('"left"');
      expect(message).toContain('"right"');
      expect(vm.machine.assignment.viommus).toHaveLength(1);
      expect(vm.machine.assignment.held).toEqual([B]);
      const { table } = stage1(vm);
      vm.device("00:02.0").installContext(table);
      expect(write(vm.device("00:02.0"), 1)).toBe(true);
    }));

  it("is refused by a kind of vIOMMU that does not know of streams", () =>
    run((t) => {
      const process = t.host().createProcess();
      const kind = trivialKind("viommu");
      const parts = { clock: t.clock, trace: t.trace, calls: process, memoryBytes: 65536, report: () => {} };
      const machine = new ComponentMachine({ ...parts, kind, allowSharedGroup: true });
      const message = refusal(() => machine.assignment.assign({ ...t.host().assignable(A), routingId: 0x10 }));
      expect(message).toContain(`${GROUP}, and the vIOMMU (${kind.title}) cannot share a group`);
      machine[Symbol.dispose]();
      t.host().endProcess(process.name);
    }));

  it("that another VM has is refused in the kernel's word, with the group", () =>
    run((t) => {
      t.vm({ assign: [`${A}@00:02.0`], allowSharedGroup: true });
      const message = refusal(() => t.vm({ assign: [`${B}@00:02.0`], allowSharedGroup: true }));
      expect(message).toContain(GROUP);
      // The held device is open: VFIO gives a cdev to one user (vfio_df_device_first_open after iommufd_device_bind: -EPERM, or -EINVAL).
      expect(message).toMatch(/: E(PERM|INVAL|BUSY)$/);
    }));

  it("keeps its promises through an FLR of a function that is kept from DMA", () =>
    run((t) => {
      const vm = t.vm({ assign: [`${A}@00:02.0`, `${B}@00:03.0`], allowSharedGroup: true });
      const [a, b] = [vm.device("00:02.0"), vm.device("00:03.0")];
      const { table, first } = stage1(vm);
      a.installContext(table);
      b.entry.device.reset();
      b.configWrite16(4, 0x6);
      expect(b.configRead32(4) & 0xffff).toBe(6);
      expect([write(b, 2), first()]).toEqual([false, 0]);
      b.installContext(table);
      expect([write(b, 3), first()]).toEqual([true, 3]);
    }));

  it("is left blocked where the host refuses to hold its other function", () =>
    run((t) => {
      // The second bind is the neighbour's.
      t.host().inject(["ioctl:VFIO_DEVICE_BIND_IOMMUFD@2=ENOMEM"]);
      expect(refusal(() => t.vm({ assign: [`${A}@00:02.0`], allowSharedGroup: true }))).toContain("ENOMEM");
      expect(t.host().liveObjects).toBe(0);
    }));
});

describe("with leave to share, whatever a guest does", () => {
  const PLACES = [
    [A, "00:02.0"],
    [B, "00:03.0"],
  ] as const;
  type Own = "none" | "bypass" | 0 | 1;

  it.each([1, 2, 3, 4, 5, 6])("a device reaches what its own context says, or nothing (seed %d)", (seed) => {
    const body = (t: ScenarioContext) => {
      const vm = t.vm({ assign: PLACES.map(([host, guest]) => `${host}@${guest}`), allowSharedGroup: true });
      const tables = [stage1(vm), stage1(vm)];
      const bypassed = vm.ram.allocate();
      const own = new Map<string, Own>();
      let byte = 0;
      const look = () => {
        const there = PLACES.filter(([, guest]) => own.has(guest));
        const having = there.map(([, guest]) => own.get(guest)!).filter((context) => context !== "none");
        const agree = having.every((context) => context === having[0]);
        for (const [, guest] of there) {
          const context = own.get(guest)!;
          byte = (byte + 1) % 256;
          const before = tables.map(({ first }) => first());
          const address = context === "bypass" ? bypassed : 0x1000n;
          const { ok } = vm.device(guest).dmaWrite(address, Uint8Array.of(byte));
          expect(ok, `${guest} with ${context} of ${having.join()}`).toBe(context !== "none" && agree);
          const after = tables.map(({ first }) => first());
          expect(after).toEqual(before.map((was, index) => (ok && context === index ? byte : was)));
          vm.takeFaults();
        }
        vm.takeInterrupts();
      };
      for (const [, guest] of PLACES) own.set(guest, "none");
      for (let step = 0; step < 120; step++) {
        const [host, guest] = PLACES[t.random.below(2)]!;
        const there = own.has(guest);
        const what = t.random.below(8);
        if (!there || what === 0) {
          if (there) {
            // The context in the directory stays: what is plugged in again has it at once.
            vm.unassign(vm.device(guest));
            own.delete(guest);
            continue;
          }
          vm.assign(`${host}@${guest}`);
          vm.device(guest).installContext("blocked");
          own.set(guest, "none");
        } else if (what === 1) {
          vm.device(guest).entry.device.reset();
          vm.device(guest).configWrite16(4, 0x6);
        } else {
          const context = (["none", "bypass", 0, 1] as const)[t.random.below(4)]!;
          const given = context === "none" ? "blocked" : context === "bypass" ? context : tables[context]!.table;
          vm.device(guest).installContext(given);
          own.set(guest, context);
        }
        look();
      }
    };
    const result = runScenario(scenario("s", body), { seed, defaultHost: HOST, findHost: () => HOST });
    if (!result.passed) throw new Error(`${result.message}\n${result.stack}`);
  });
});

describe("the iommu groups of a description", () => {
  const device = (bdf: string, more: object = {}) => ({ model: "edu", bdf, iommu: "iommu0", ...more });
  const described = (devices: object[]) =>
    parseHost(
      {
        name: "h",
        iommus: [
          { name: "iommu0", kind: "riscv" },
          { name: "iommu1", kind: "riscv" },
        ],
        devices,
      },
      "h",
    );

  it("are those the kernel makes: equal numbers, else functions of a slot together (there is no ACS), else each its own", () =>
    run((t) => {
      const description = described([
        device("0001:00:01.0"),
        device("0000:00:04.1"),
        device("0000:00:05.0", { group: 3 }),
        device("0000:00:02.0", { group: 3 }),
        device("0000:00:04.0"),
        device("0000:00:04.2", { group: 9 }),
        device("0000:00:06.0", { iommu: undefined }),
        device("0000:00:01.0", { iommu: "iommu1" }),
      ]);
      const groups = iommuGroups(description);
      expect(groups.map(({ devices }) => devices)).toEqual([
        ["0001:00:01.0"],
        ["0000:00:01.0"],
        ["0000:00:02.0", "0000:00:05.0"],
        ["0000:00:04.0", "0000:00:04.1"],
        ["0000:00:04.2"],
      ]);
      const host = t.host(description);
      for (const group of groups) for (const name of group.devices) expect(host.groupOf(name)).toEqual(group);
      expect(host.groupOf("0000:00:06.0")).toBe(null);
    }));

  it("stand behind one IOMMU each: anything else is refused with its place", () => {
    const group = [device(A, { group: 1 }), device(B, { group: 1, iommu: "iommu1" })];
    expect(() => described(group)).toThrow(
      /devices\.1\.group: group 1 is behind "iommu0", this device is behind "iommu1"/,
    );
    const slot = [device("0000:00:01.0"), device("0000:00:01.1", { iommu: "iommu1" })];
    expect(() => described(slot)).toThrow(/devices\.1\.group: functions of one slot are a group/);
  });
});
