// The default guest with an SMMUv3 on the machine that `nestbox boot --viommu smmuv3` makes: nested over the modelled host's SMMU. All steps hold; and it
// fails when something underneath is broken on purpose, one thing at a time.

import { readFileSync } from "node:fs";
import { beforeAll, describe, expect, it } from "vitest";
import { buildFixtures } from "../../guest-fixtures/build.mjs";
import { CMD_TLBI_NH_VA } from "../../host/arch/smmuv3/commands.ts";
import { F_TRANSLATION } from "../../host/arch/smmuv3/event-records.ts";
import type { HpaPfn } from "../../host/base/address.ts";
import type { TracedEvent } from "../../host/base/trace.ts";
import type { Host } from "../../host/host.ts";
import { IOMMU_HWPT_INVALIDATE, IOMMU_VDEVICE_ALLOC } from "../../host/uapi/iommufd.ts";
import type { PreparedComponent } from "../../vmm/vcpu/component/prepare.ts";
import { SMMUV3 } from "../../vmm/viommu/smmuv3/kind.ts";
import { soundImage } from "../vmm/vcpu/component/scripted-machine.ts";
import { bootHosted, type HostedOptions, type HostedRun } from "./hosted-machine.ts";

const SOURCE_IOVA = 0x12_3456_7000n;
/** Below 2 MiB the host's second stage has 4 KiB leaves, so that one page can be damaged by itself. */
const ONE_MEBIBYTE = 2 ** 20;

let guest: PreparedComponent;
beforeAll(async () => {
  guest = await soundImage(readFileSync((await buildFixtures())["nested-dma"]!));
});

const boot = (options: HostedOptions = {}): HostedRun => bootHosted(guest, { kind: SMMUV3, ...options });

function expectFailure(options: HostedOptions, complaint: RegExp): void {
  const { output, outcome } = boot(options);
  expect(output).toMatch(complaint);
  expect(outcome).toEqual({ kind: "exited", status: 1 });
}

describe("the default guest, nested over an SMMUv3", () => {
  it("all its steps hold with its two devices' ids crossed over, and each fault is the event of IHI 0070", () => {
    const { output, outcome } = boot();
    expect(output).toMatch(/\ndone: all steps hold\n$/);
    expect(output).toContain(
      "\nunmap: F_TRANSLATION, stream 0x10, read, address 0x1234567000; F_TRANSLATION, stream 0x10, ",
    );
    expect(output).toContain("\npermissions: F_PERMISSION, stream 0x10, write, address 0x1234567000 on a page");
    expect(output).toContain("\ncontext: C_BAD_CD, stream 0x8; valid again");
    expect(output).toContain("\noutside: nothing is heard; no byte moved\n");
    expect(outcome).toEqual({ kind: "exited", status: 0 });
  });

  it("it drives the devices of its first SMMU when there is a second one", () => {
    const { output } = boot({
      assign: [
        ["0000:00:01.0", 0x18],
        ["0000:00:02.0", 0x10],
        ["0000:80:01.0", 0x08],
      ],
    });
    expect(output).toContain("pci: 3 functions, edu at 00:02.0 and 00:03.0\n");
    expect(output).toMatch(/\ndone: all steps hold\n$/);
  });

  it("its tables are walked by the hardware through stage 2, and its fault is one chain from the device to its queue", () => {
    const { events } = boot({ traced: true });
    const second = events.filter(
      (event) => event.type === "walk" && event.where === "host" && event.table === "stage2",
    );
    expect(second.length).toBeGreaterThan(0);
    for (const step of second) expect(step).toMatchObject({ kind: "smmuv3", space: "spa" });
    const faults = events.filter((event) => event.type === "fault" && event.faultCause === F_TRANSLATION);
    const where = faults.map((event) => (event.type === "fault" ? event.where : ""));
    // What hardware recorded for a mapping of the guest's is what the guest finds; what it recorded for stage 2 ("outside") never gets there.
    expect(where.filter((place) => place === "guest")).toHaveLength(3);
    expect(where.filter((place) => place === "hardware")).toHaveLength(5);
    const first = faults.find((event) => event.type === "fault" && event.where === "guest")!;
    expect(first).toMatchObject({ deviceId: 0x10, iotval: SOURCE_IOVA });
  });

  it("two runs give the same trace, event by event", () => {
    const [a, b] = [boot({ traced: true }), boot({ traced: true })];
    expect(a.events.length).toBeGreaterThan(1000);
    expect(b.events).toEqual(a.events);
    expect(b.virtualNs).toBe(a.virtualNs);
  });
});

describe("the default guest fails", () => {
  it("when the vDEVICEs are swapped", () => {
    const swap = new Map([
      [0x08n, 0x10n],
      [0x10n, 0x08n],
    ]);
    const tamper: HostedOptions["tamper"] = (request, structure) => {
      if (request !== IOMMU_VDEVICE_ALLOC) return;
      const id = structure.getBigUint64(16, true);
      structure.setBigUint64(16, swap.get(id) ?? id, true);
    };
    expectFailure({ tamper }, /FAILED: device id of the fault record .* is 0x8, not 0x10\n$/);
  });

  it("when the remap's forwarded TLBI_NH_VA is one of another page", () => {
    let changed = 0;
    const tamper: HostedOptions["tamper"] = (request, structure, memory) => {
      if (request !== IOMMU_HWPT_INVALIDATE || changed > 0) return;
      const count = structure.getUint32(24, true);
      const commands = memory.bytes(structure.getBigUint64(8, true), count * 16);
      const view = new DataView(commands.buffer, commands.byteOffset, commands.byteLength);
      for (let i = 0; i < count; i++) {
        const [word0, word1] = [view.getBigUint64(16 * i, true), view.getBigUint64(16 * i + 8, true)];
        if (Number(word0 & 0xffn) !== CMD_TLBI_NH_VA || word1 >> 12n !== SOURCE_IOVA >> 12n) continue;
        view.setBigUint64(16 * i + 8, word1 + 4096n, true);
        changed++;
      }
    };
    expectFailure({ tamper }, /FAILED: what was read after TLBI_NH_VA and CMD_SYNC differs at byte 0\n$/);
    expect(changed).toBe(1);
  });

  it.each<[string, (entry: bigint) => bigint, RegExp]>([
    ["leads to another page", (entry) => entry ^ 0x1000n, /FAILED: the page 00:0\d\.0 copied differs at byte \d+\n$/],
    ["is not valid", (entry) => entry & ~1n, /FAILED: .*\n$/],
  ])("when the second-stage entry under a DMA buffer %s", (_name, damage, complaint) => {
    // A sound run tells where the entry is; the next run puts everything in the same place.
    const at = entryUnderSource(boot({ memoryBytes: ONE_MEBIBYTE, traced: true }).events);
    const [pfn, offset] = [Number(at >> 12n) as HpaPfn, Number(at & 0xfffn)];
    let sound = 0n;
    const put = (host: Host, entry: bigint) =>
      host.memory.store64(pfn, offset, Number(entry & 0xffff_ffffn), Number(entry >> 32n));
    const onLine = (line: string, host: Host): void => {
      if (line.startsWith("iommu: ")) {
        host.memory.load64(pfn, offset);
        sound = (BigInt(host.memory.hi) << 32n) | BigInt(host.memory.lo);
        put(host, damage(sound));
      }
      // The host's own unmap must find what it mapped.
      if (line.startsWith("FAILED: ")) put(host, sound);
    };
    expectFailure({ memoryBytes: ONE_MEBIBYTE, onLine }, complaint);
  });
});

/** Host-physical address of the second-stage page descriptor that the first read of the source IOVA went through. */
function entryUnderSource(events: readonly TracedEvent[]): bigint {
  const read = events.find((event) => event.type === "dma" && !event.write && event.iova === SOURCE_IOVA);
  if (read?.type !== "dma" || read.spa === undefined) throw new Error("no DMA from the source IOVA");
  const page = read.spa & ~0xfffn;
  const leaf = events.find(
    (event) =>
      event.type === "walk" &&
      event.table === "stage2" &&
      event.level === 3 &&
      (event.entry & 0xffff_ffff_f000n) === page,
  );
  if (leaf?.type !== "walk") throw new Error("no 4 KiB second-stage leaf under the source page");
  return leaf.address;
}
