// A virtual machine on a modelled host with one SMMUv3 (../hosted-vm.ts), with a device on no bus that can stall, where it is asked for. The guest's driver
// is test/vmm/viommu/smmuv3/guest.ts.

import type { SmmuFeatures } from "../../../../host/arch/smmuv3/identification.ts";
import type { EduOptions } from "../../../../host/devices/edu/edu.ts";
import type { Smmuv3Options } from "../../../../host/hw/iommu/smmuv3/options.ts";
import { iommuHwInfoArmSmmuv3 } from "../../../../host/uapi/smmuv3-nesting.ts";
import { AssignedPlatformDevice } from "../../../../vmm/vfio/assigned-platform-device.ts";
import { SMMUV3_NESTING } from "../../../../vmm/viommu/smmuv3/nested-codec.ts";
import { machine } from "../../../host/kernel/machine.ts";
import { Guest, RAM } from "../../../vmm/viommu/smmuv3/guest.ts";
import { HostedVm, type Plugged } from "../hosted-vm.ts";

export interface SmmuVmOptions {
  readonly features: Partial<SmmuFeatures>;
  readonly caches?: Smmuv3Options["caches"];
  /** Host's name of an edu on no bus, which can stall; left out: none. */
  readonly platform?: string;
  readonly devices: readonly { readonly rid: number; readonly options: EduOptions }[];
}

export class SmmuVm extends HostedVm<Guest> {
  readonly #stalls: boolean;

  constructor({ features, caches, devices, platform }: SmmuVmOptions) {
    const platforms = platform === undefined ? [] : [{ name: platform, deviceId: 0x300, canStall: true }];
    const smmu = { features, atsTimeoutNs: 20_000, ...(caches === undefined ? {} : { caches }) };
    super(machine({ smmus: [smmu], devices, platform: platforms, ramPages: 1024 }), SMMUV3_NESTING, RAM);
    this.#stalls = platform !== undefined;
  }

  /** As `assign`, of a device on no bus, whose transactions may stall. */
  assignPlatform(hostName: string, guestId: number): Plugged {
    const { machine: host } = this;
    const bound = host.vfio.nodeOf(hostName) === null ? host.kernel.platform.bind(hostName, "vfio-platform") : 0;
    if (bound < 0) throw new Error(`vfio-platform does not bind: ${bound}`);
    const handle = this.nextHandle();
    const guestName = `guest ${guestId.toString(16)}`;
    const path = host.vfio.nodeOf(hostName)!;
    const device = new AssignedPlatformDevice({
      ...{ addressSpace: this.space, path, handle, guestName, hostName, trace: host.trace },
    });
    this.plugIn(device, handle, guestId, { faults: true, ats: false, pri: false, canStall: true });
    return this.keep({ guestId, hostName, device, bar: device.regions[0]!.registers });
  }

  protected override makeGuest(info: Uint8Array): Guest {
    const { idr0, idr1, idr3, idr5, aidr } = iommuHwInfoArmSmmuv3.decode(info);
    const { clock, trace } = this.machine;
    const words = {
      ...{ IDR0: BigInt(idr0), IDR1: BigInt(idr1), IDR3: BigInt(idr3), IDR5: BigInt(idr5) },
      AIDR: BigInt(aidr),
    };
    return new Guest({ host: this.host, hardware: words, stalls: this.#stalls, clock, trace });
  }
}
