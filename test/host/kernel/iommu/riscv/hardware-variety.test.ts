// The driver on hardware of every shape: the same story - nested DMA, an interrupt, a fault told to the guest, an unmap - must hold.

import { describe, expect, it } from "vitest";
import { IGS_MSI, IGS_WSI } from "../../../../../host/arch/riscv/capabilities.ts";
import { encodeCommand } from "../../../../../host/arch/riscv/commands.ts";
import * as R from "../../../../../host/devices/edu/registers.ts";
import type { RiscvIommuOptions } from "../../../../../host/hw/iommu/riscv/options.ts";
import { EINVAL } from "../../../../../host/uapi/errno.ts";
import * as I from "../../../../../host/uapi/iommufd.ts";
import * as X from "../../../../../host/uapi/vfio.ts";
import { GuestRam, GuestSv39, RAM_GPA } from "../../guest.ts";
import { eduDma, eduOutcome, machine, name } from "../../machine.ts";

const RID = 0x18;
const IOVA = 0x4000_0000n;
const SW_MSI = 0x0800_0000n;

const variety: [string, RiscvIommuOptions][] = [
  ["as it comes", {}],
  ["wired interrupts only", { capabilities: { IGS: IGS_WSI } }],
  ["messages only", { capabilities: { IGS: IGS_MSI } }],
  ["one interrupt vector", { vectorBits: 0 }],
  ["base-format device contexts", { capabilities: { MSI_FLAT: false, MSI_MRIF: false, AMO_MRIF: false } }],
  ["a one-level directory", { directoryLevels: 1 }],
  [
    "a two-level directory of base-format contexts",
    {
      directoryLevels: 2,
      capabilities: { MSI_FLAT: false, MSI_MRIF: false, AMO_MRIF: false },
    },
  ],
  ["queues of four entries", { queueSizeLog2: 2 }],
  ["no ATS", { capabilities: { ATS: false, T2GPA: false } }],
  ["Bare after reset", { resetMode: "bare" }],
  ["Sv39 and Sv39x4 only", { capabilities: { Sv48: false, Sv57: false, Sv48x4: false, Sv57x4: false } }],
  ["no caches", { caches: { devices: 0, processes: 0, translations: 0, messages: 0, tables: 0 } }],
  ["no NL, no S, no hardware A/D", { capabilities: { NL: false, S: false, AMO_HWAD: false } }],
];

describe.each(variety)("hardware with %s", (_name, options) => {
  it("carries nested DMA, interrupts, faults and unmaps", () => {
    const host = machine({ iommus: [options], devices: [{ rid: RID }] });
    host.assign();
    const user = host.user();
    const ram = new GuestRam();
    const va = user.process.memory.mapBuffer(ram.buffer, 0, ram.buffer.byteLength);
    const iommufd = user.iommufd();
    const ioas = user.ioas(iommufd);
    user.map(iommufd, ioas, va, ram.buffer.byteLength, RAM_GPA);
    const vfio = user.open(host.vfio.nodeOf(name(RID))!);
    const device = user.bind(vfio, iommufd);
    const parent = user.hwpt(iommufd, device, ioas, { flags: I.IOMMU_HWPT_ALLOC_NEST_PARENT });
    const viommu = user.viommu(iommufd, device, parent);
    user.vdevice(iommufd, viommu, device, 0x10n);
    const [, veventq] = user.veventq(iommufd, viommu);
    user.attach(vfio, parent);
    user.enableDevice(vfio);
    const bar = user.bar0(vfio);
    const { eventfd } = user.irq(vfio, X.VFIO_PCI_MSI_IRQ_INDEX);
    const stage1 = new GuestSv39(ram);
    stage1.map(SW_MSI, SW_MSI);
    stage1.map(IOVA, ram.page());
    const nested = user.nested(iommufd, device, viommu, { tc: 1n, fsc: stage1.fsc, ta: 7n << 12n });
    expect(user.attach(vfio, nested)).toBe(nested);

    eduDma(bar, IOVA, 4096, true, true);
    host.run(200_000);
    expect(eduOutcome(bar)).toBe(R.OUTCOME_DONE);
    expect(user.count(eventfd)).toBe(1);

    stage1.unmap(IOVA);
    const commands = Array.from({ length: 20 }, () => encodeCommand("IOTINVAL.VMA", { PSCV: 1, PSCID: 7 }));
    expect(user.invalidate(iommufd, viommu, commands)).toEqual({ result: 0, done: 20 });
    // More faults than a small queue holds, one after the other.
    for (let i = 0; i < 6; i++) {
      eduDma(bar, IOVA, 64, true);
      host.run(10_000);
      expect(eduOutcome(bar)).toBe(R.OUTCOME_REFUSED);
    }
    expect(user.readAll(veventq).length).toBe(6 * 40);

    stage1.map(IOVA, ram.page());
    eduDma(bar, IOVA, 64, true);
    host.run(10_000);
    expect(eduOutcome(bar)).toBe(R.OUTCOME_DONE);
    expect(user.unmap(iommufd, ioas, RAM_GPA, 1n << 20n)).toBe(0);
    eduDma(bar, IOVA, 64, true);
    host.run(10_000);
    expect(eduOutcome(bar)).toBe(R.OUTCOME_REFUSED);
    user.process.exit();
    expect(host.kernel.liveKinds).toEqual([]);
  });
});

describe("hardware that the driver cannot use", () => {
  it("leaves its devices without IOMMU, and VFIO does not take them", () => {
    // Big-endian structures that cannot be switched.
    const host = machine({ iommus: [{ bigEndian: true, bigEndianWritable: false }] });
    expect(host.problems.length).toBe(1);
    expect(host.kernel.pci.bind(name(0x0108), "vfio-pci")).toBe(-EINVAL);
    expect(host.kernel.frames.usedPages).toBe(0);
  });

  it("a second IOMMU works on", () => {
    const host = machine({
      iommus: [{ bigEndian: true, bigEndianWritable: false }, {}],
      devices: [{ rid: 0x0108 }, { rid: 0x0110, iommu: 1 }],
    });
    expect(host.kernel.pci.bind(name(0x0110), "vfio-pci")).toBe(0);
  });
});
