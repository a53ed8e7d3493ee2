// The driver's half of a RISC-V vIOMMU: a slice of one IOMMU over one NEST_PARENT domain, with a GSCID of its own, so that two
// vIOMMUs on one parent never mix the PSCIDs of their guests.
//
// Invalidations are the guest's own commands (16 bytes each), in order; guest-commands.ts checks and rewrites each. They go to the
// hardware in groups that end in the kernel's fence; when one is refused, those before it are fenced and counted as done. (SMMUv3 in Linux 7.2 counts converted commands that
// were never issued; that is not copied.)

import { encodeCommand } from "../../../arch/riscv/commands.ts";
import type { Stateful, StateReader, StateRecord } from "../../../base/state.ts";
import { EINVAL, EOPNOTSUPP } from "../../../uapi/errno.ts";
import {
  IOMMU_HWPT_DATA_RISCV,
  IOMMU_VIOMMU_INVALIDATE_DATA_RISCV,
  iommuHwptRiscv,
} from "../../../uapi/riscv-nesting.ts";
import { AttachmentList } from "../attachments.ts";
import type {
  InvalidationBatch,
  IommuDevice,
  NestedDomain,
  UserData,
  VdeviceBackendView,
  ViommuBackend,
  ViommuCore,
} from "../driver.ts";
import type { RiscvDriver } from "./driver.ts";
import { type CommandScope, forwardCommand, refusedOfVma1, refusedOfVma2, waitsForDevice } from "./guest-commands.ts";
import type { RiscvIommu } from "./instance.ts";
import { checkGuestContext, RiscvNestedDomain } from "./nested-domain.ts";
import type { RiscvPagingDomain } from "./paging-domain.ts";

/** RISC-V device ids have 24 bits. */
const DEVICE_IDS = 1n << 24n;
const COMMAND_BYTES = 16;
/** Commands handed to the hardware between two fences of the kernel's; also bounds what a DV = 0 expansion may add. */
const GROUP = 1024;

export class RiscvViommu implements ViommuBackend, CommandScope, Stateful {
  readonly driver: RiscvDriver;
  readonly iommu: RiscvIommu;
  readonly parent: RiscvPagingDomain;
  readonly core: ViommuCore;
  gscid: number;
  place = 0;
  /** What is attached to its nested domains, which share the list. */
  readonly attachments = new AttachmentList();
  readonly refusedOfVma1: number; // not state: what the hardware's capabilities say
  readonly refusedOfVma2: number; // not state: what the hardware's capabilities say
  #nestedDomains = 0;

  constructor(driver: RiscvDriver, iommu: RiscvIommu, parent: RiscvPagingDomain, gscid: number, core: ViommuCore) {
    this.driver = driver;
    this.iommu = iommu;
    this.parent = parent;
    this.gscid = gscid;
    this.core = core;
    this.refusedOfVma1 = refusedOfVma1(iommu.capabilities);
    this.refusedOfVma2 = refusedOfVma2(iommu.capabilities);
    parent.addTagUser(this);
  }

  /** iohgatp of this vIOMMU's devices. */
  get secondStage(): bigint {
    return this.parent.secondStage(this.gscid);
  }

  /** -EOPNOTSUPP for flags, -EINVAL for another type, a wrong size, or words a guest may not set. */
  allocNested(_device: IommuDevice, flags: number, data: UserData): NestedDomain | number {
    if (flags !== 0) return -EOPNOTSUPP;
    if (data.type !== IOMMU_HWPT_DATA_RISCV) return -EINVAL;
    const bytes = data.copy(iommuHwptRiscv.bytes, iommuHwptRiscv.bytes);
    if (typeof bytes === "number") return bytes;
    const { tc, fsc, ta } = iommuHwptRiscv.decode(bytes);
    const words = checkGuestContext(tc, fsc, ta, this);
    if (typeof words === "number") return words;
    this.#nestedDomains++;
    this.driver.live.created("nested domain");
    return new RiscvNestedDomain(this, words);
  }

  nestedDomainFreed(): void {
    this.#nestedDomains--;
    this.driver.live.destroyed("nested domain");
  }

  /** A guest's device id is 24 bits: a wider one would alias another device's in the guest's records. */
  vdeviceInit(vdevice: VdeviceBackendView): number {
    return vdevice.virtualId >= DEVICE_IDS ? -EINVAL : 0;
  }

  // --- invalidation ---

  /** -EINVAL for another type; -EIO for a command that is refused, with the ones before it done; -ETIMEDOUT from the hardware. */
  invalidate(batch: InvalidationBatch): number {
    batch.done = 0;
    if (batch.type !== IOMMU_VIOMMU_INVALIDATE_DATA_RISCV) return -EINVAL;
    let result = 0;
    for (let first = 0; first < batch.count && result === 0; first += GROUP) {
      result = this.#forwardGroup(batch, first, Math.min(first + GROUP, batch.count));
    }
    // What devices did before the fence is reported before the caller hears that it is over (§4.1.2: earlier requests are done).
    this.iommu.drainRecords();
    return result;
  }

  /** Forwards commands [first, end) and waits for them. */
  #forwardGroup(batch: InvalidationBatch, first: number, end: number): number {
    const { words } = batch;
    let refused = 0;
    let firstWaiting = -1;
    let at = first;
    while (at < end && refused === 0) {
      const loaded = batch.load(at, COMMAND_BYTES);
      if (loaded < 0) refused = loaded;
      for (let entry = 0; entry < loaded && at < end; entry++) {
        const word = 4 * entry;
        const w0 = words[word]!;
        refused = forwardCommand(this, w0, words[word + 1]!, words[word + 2]!, words[word + 3]!);
        if (refused < 0) break;
        if (firstWaiting < 0 && waitsForDevice(w0)) firstWaiting = at;
        at++;
      }
    }
    const fenced = this.iommu.queue.fence();
    // What timed out is a device; the commands before the first that waits for one are certainly done.
    batch.done = fenced === 0 ? at : firstWaiting < 0 ? first : firstWaiting;
    return fenced < 0 ? fenced : refused;
  }

  findDevice(guestId: number): IommuDevice | null {
    return this.core.findDevice(guestId);
  }

  eachDevice(visit: (device: IommuDevice) => void): void {
    this.core.eachVdevice(({ device }) => visit(device));
  }

  /** Its devices are gone and its nested domains freed: nothing of the guest's may stay cached under the GSCID. */
  destroy(): void {
    if (this.#nestedDomains > 0) throw new Error("a vIOMMU is destroyed under its nested domains");
    this.parent.removeTagUser(this);
    this.iommu.queue.push(encodeCommand("IOTINVAL.VMA", { GV: 1, GSCID: this.gscid }));
    this.iommu.queue.push(encodeCommand("IOTINVAL.GVMA", { GV: 1, GSCID: this.gscid }));
    this.iommu.queue.fence();
    this.driver.viommuDestroyed(this);
  }

  saveState(): StateRecord {
    return { gscid: this.gscid, place: this.place, nestedDomains: this.#nestedDomains };
  }

  restoreState(state: StateReader): void {
    this.gscid = state.number("gscid");
    this.place = state.number("place");
    this.parent.orderTagUsers();
    this.#nestedDomains = state.number("nestedDomains");
  }

  *stateParts(): Generator<readonly [string, Stateful]> {
    yield ["attachments", this.attachments];
  }
}
