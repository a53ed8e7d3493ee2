// Devices behind IOMMUs that have hardware, for `nestbox fuzz ioctl`: two IOMMUs of one kind, devices without a bus that do nothing of their own,
// and what a guest of that kind might say. What the drivers wrote is checked by letting the hardware translate.

import { IGS_WSI } from "../../../host/arch/riscv/capabilities.ts";
import type { HpaPfn } from "../../../host/base/address.ts";
import type { PhysicalMemory } from "../../../host/base/memory.ts";
import { type AtsTarget, NO_PASID } from "../../../host/devices/ports.ts";
import { ACCESS_READ, type HardwareIommu, TRANSLATED } from "../../../host/hw/iommu/port.ts";
import { RiscvIommu } from "../../../host/hw/iommu/riscv/iommu.ts";
import { Smmuv3 } from "../../../host/hw/iommu/smmuv3/smmu.ts";
import { DeviceAttachments } from "../../../host/kernel/iommu/attachments.ts";
import type { IommuDevice, PagingDomain } from "../../../host/kernel/iommu/driver.ts";
import type { Kernel } from "../../../host/kernel/kernel.ts";
import * as N from "../../../host/uapi/riscv-nesting.ts";
import * as S from "../../../host/uapi/smmuv3-nesting.ts";

/** The values of one kind's half of the interface. */
export interface KindValues {
  readonly name: string;
  make(parts: ConstructorParameters<typeof Smmuv3>[0], chance: (percent: number) => boolean): HardwareIommu;
  readonly hwInfo: number;
  readonly viommu: number;
  readonly nested: number;
  readonly nestedBytes: number;
  readonly invalidate: number;
  readonly events: number;
  /** Doublewords that mean something at the start of a nested HWPT's data, and of a command. */
  readonly words: readonly bigint[];
}

export const HARDWARE_KINDS: readonly KindValues[] = [
  {
    name: "riscv",
    make: (parts, chance) =>
      new RiscvIommu(parts, { capabilities: { T2GPA: chance(50), AMO_HWAD: chance(70), IGS: IGS_WSI } }),
    hwInfo: N.IOMMU_HW_INFO_TYPE_RISCV,
    viommu: N.IOMMU_VIOMMU_TYPE_RISCV,
    nested: N.IOMMU_HWPT_DATA_RISCV,
    nestedBytes: N.iommuHwptRiscv.bytes,
    invalidate: N.IOMMU_VIOMMU_INVALIDATE_DATA_RISCV,
    events: N.IOMMU_VEVENTQ_TYPE_RISCV,
    // tc: V; V, EN_ATS. IOTINVAL.VMA, IODIR.INVAL_DDT and INVAL_PDT with DV for devices 0 and 1, ATS.INVAL.
    words: [0n, 1n, 3n, 1n, 3n | (2n << 32n), 3n | (1n << 7n) | (0x102n << 32n), 4n | (2n << 32n), 0x81n],
  },
  {
    name: "smmuv3",
    make: (parts, chance) =>
      new Smmuv3(parts, {
        features: {
          RIL: chance(50),
          Hyp: chance(50),
          FWB: chance(80),
          SSIDSIZE: chance(70) ? 20 : 0,
          HTTU: chance(70) ? 2 : 0,
        },
      }),
    hwInfo: S.IOMMU_HW_INFO_TYPE_ARM_SMMUV3,
    viommu: S.IOMMU_VIOMMU_TYPE_ARM_SMMUV3,
    nested: S.IOMMU_HWPT_DATA_ARM_SMMUV3,
    nestedBytes: S.iommuHwptArmSmmuv3.bytes,
    invalidate: S.IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3,
    events: S.IOMMU_VEVENTQ_TYPE_ARM_SMMUV3,
    // V = 0; abort; bypass; stage 1. CFGI_CD, TLBI_NH_ALL, NH_VA, NSNH_ALL, ATC_INV, SYNC; some for stream 1.
    words: [0n, 1n, 9n, 0xbn | 0x4000n, 0x5n | (1n << 32n), 0x10n, 0x12n, 0x30n, 0x40n | (1n << 32n), 0x40n, 0x46n],
  },
];

/** A device that its driver can switch, and that never does anything. */
class StillDevice implements IommuDevice {
  readonly name: string;
  readonly deviceId: number;
  readonly maxPasids: number;
  readonly hasAts: boolean;
  readonly hasPri: boolean;
  readonly canStall: boolean;
  readonly isVirtualFunction = false;
  readonly services = { setPasid: () => {}, setAts: () => {}, setPri: () => {} };
  readonly attachments = new DeviceAttachments();
  driverData: unknown = null;

  constructor(name: string, deviceId: number, can: { pasids: number; ats: boolean; stalls: boolean }) {
    this.name = name;
    this.deviceId = deviceId;
    this.maxPasids = can.pasids;
    this.hasAts = can.ats;
    this.hasPri = can.ats;
    this.canStall = can.stalls;
  }
}

/** Answers every message at once. */
const OBEDIENT: AtsTarget = { invalidate: () => true, pageResponse: () => {} };

/** Three devices in two groups behind one IOMMU, one behind another. */
export function addHardware(
  kernel: Kernel,
  memory: PhysicalMemory<HpaPfn>,
  kind: KindValues,
  chance: (percent: number) => boolean,
): { devices: IommuDevice[]; hardware: readonly HardwareIommu[] } {
  const hardware = [0, 1].map((i) =>
    kind.make({ name: `iommu${i}`, memory, clock: kernel.clock, trace: kernel.trace }, chance),
  );
  for (const iommu of hardware) {
    iommu.findTarget = () => OBEDIENT;
    const probed = kernel.iommuHardware.add(iommu);
    if (probed < 0) throw new Error(`probing the IOMMU: ${probed}`);
  }
  const devices = [0, 0, 0, 1].map((behind, i) => {
    const iommu = hardware[behind]!;
    const limits = kernel.iommuHardware.limitsOf(iommu);
    const ats = limits.ats && chance(50);
    const device = new StillDevice(`device${i}`, 0x100 + i, {
      pasids: chance(60) ? limits.maxPasids : 0,
      ats,
      stalls: !ats && chance(30),
    });
    kernel.iommuHardware.place(device, iommu);
    const added = kernel.iommu.addDevice(device, kernel.iommuHardware.driverOf(iommu)!, i < 2 ? "two" : null);
    if (added < 0) throw new Error(`the device was refused: ${added}`);
    return device;
  });
  return { devices, hardware };
}

/**
 * Lets the hardware translate pages of a device, each place that has a paging domain: it must see what the domain says now, whatever it has
 * cached. The first that it sees otherwise, or null.
 */
export function mistranslation(
  device: IommuDevice,
  hardware: readonly HardwareIommu[],
  pages: readonly bigint[],
): string | null {
  const iommu = hardware.find(({ name }) => name === (device.deviceId === 0x103 ? "iommu1" : "iommu0"))!;
  const { requester, pasids } = device.attachments;
  const places = [...(requester === null ? [] : [requester]), ...pasids.values()];
  for (const { pasid, domain } of places) {
    if (domain.kind !== "paging") continue;
    for (const iova of pages) {
      const expected = (domain as PagingDomain).iovaToPhys(iova);
      const pfn = Number(iova >> 12n);
      const status = iommu.translate(
        device.deviceId,
        pasid === NO_PASID ? -1 : pasid,
        false,
        ACCESS_READ,
        pfn,
        0,
        false,
        -1,
      );
      const seen = status === TRANSLATED ? BigInt(iommu.resultPfn) << 12n : null;
      if (seen !== expected) {
        return `${device.name}, PASID ${pasid}: 0x${iova.toString(16)} is ${seen ?? "nothing"} for the hardware, ${expected ?? "nothing"} for the kernel`;
      }
    }
  }
  return null;
}
