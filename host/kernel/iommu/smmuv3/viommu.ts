// The driver's half of an SMMUv3 vIOMMU (Linux: struct arm_vsmmu): a slice of one SMMU over one NEST_PARENT domain. It has no tag of its own: what
// a guest's stage 1 makes is cached under the parent's VMID, as in Linux, so that two vIOMMUs on one parent share the ASIDs of their guests.
//
// Invalidations are the guest's own commands (16 bytes each), in order; guest-commands.ts rewrites each. All of them are copied before the
// first is converted. They go to the hardware in batches, each with the kernel's CMD_SYNC behind it:
//
//     entries ─▶ copied ─▶ converted ─▶ 63 of them, or the last: batch + CMD_SYNC ─▶ the next 63 …
//                             └─ refused: -EIO, `done` is its index
//
// Commands before a refused one that were waiting for their batch are counted as done and never issued: that is how Linux 7.2 counts
// (arm_vsmmu_cache_invalidate), and who talks to it has to issue them again. Errors of the hardware's queue are not the caller's to know.

import type { Stateful, StateReader, StateRecord } from "../../../base/state.ts";
import { EINVAL, ENOMEM, EOPNOTSUPP } from "../../../uapi/errno.ts";
import {
  IOMMU_HWPT_DATA_ARM_SMMUV3,
  IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3,
  iommuHwptArmSmmuv3,
} from "../../../uapi/smmuv3-nesting.ts";
import { AttachmentList } from "../attachments.ts";
import type { InvalidationBatch, IommuDevice, NestedDomain, UserData, ViommuBackend, ViommuCore } from "../driver.ts";
import type { Smmuv3Driver } from "./driver.ts";
import { COMMAND_WORDS, type CommandScope, convertCommand } from "./guest-commands.ts";
import { acceptGuestEntry } from "./guest-stream-entry.ts";
import type { Smmuv3Instance } from "./instance.ts";
import { Smmuv3NestedDomain } from "./nested-domain.ts";
import type { Smmuv3PagingDomain } from "./paging-domain.ts";

const COMMAND_BYTES = 4 * COMMAND_WORDS;
/** CMDQ_BATCH_ENTRIES with room for the CMD_SYNC. */
const BATCH = 63;

export class Smmuv3Viommu implements ViommuBackend, CommandScope, Stateful {
  readonly driver: Smmuv3Driver;
  readonly smmu: Smmuv3Instance;
  readonly parent: Smmuv3PagingDomain;
  readonly core: ViommuCore;
  /** What is attached to its nested domains, which share the list. */
  readonly attachments = new AttachmentList();
  readonly #batch = new Int32Array(BATCH * COMMAND_WORDS); // not state: within one request
  #nestedDomains = 0;

  constructor(driver: Smmuv3Driver, smmu: Smmuv3Instance, parent: Smmuv3PagingDomain, core: ViommuCore) {
    this.driver = driver;
    this.smmu = smmu;
    this.parent = parent;
    this.core = core;
    parent.addNested(this.attachments);
    driver.live.created("viommu backend");
  }

  // --- nested domains ---

  /** -EOPNOTSUPP for flags, -EINVAL for another type or a wrong size, -EIO for an entry that a guest may not have. */
  allocNested(_device: IommuDevice, flags: number, data: UserData): NestedDomain | number {
    if (flags !== 0) return -EOPNOTSUPP;
    if (data.type !== IOMMU_HWPT_DATA_ARM_SMMUV3) return -EINVAL;
    const bytes = data.copy(iommuHwptArmSmmuv3.bytes, iommuHwptArmSmmuv3.bytes);
    if (typeof bytes === "number") return bytes;
    const { ste0, ste1 } = iommuHwptArmSmmuv3.decode(bytes);
    const guest = acceptGuestEntry(ste0, ste1);
    if (typeof guest === "number") return guest;
    this.#nestedDomains++;
    this.driver.live.created("nested domain");
    return new Smmuv3NestedDomain(this, guest);
  }

  nestedDomainFreed(): void {
    this.#nestedDomains--;
    this.driver.live.destroyed("nested domain");
  }

  // --- invalidation ---

  /**
   * -EINVAL for another type and for no command at all, -EFAULT or -E2BIG for one that cannot be copied (nothing is done then), -EIO for one that is
   * refused, -ETIMEDOUT for a queue that stands still.
   */
  invalidate(batch: InvalidationBatch): number {
    batch.done = 0;
    if (batch.type !== IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3 || batch.count === 0) return -EINVAL;
    if (this.driver.allocationFails("copy buffer")) return -ENOMEM;
    for (let index = 0; index < batch.count; ) {
      const loaded = batch.load(index, COMMAND_BYTES);
      if (loaded < 0) return loaded;
      index += loaded;
    }
    const result = this.#issueAll(batch);
    // What devices did before the CMD_SYNC is reported before the caller hears that it is over (§4.7.3: earlier records are written).
    this.smmu.drainRecords();
    return result;
  }

  #issueAll(batch: InvalidationBatch): number {
    const { count, words } = batch;
    let waiting = 0;
    let first = 0;
    let end = 0;
    for (let index = 0; index < count; ) {
      if (index === end) {
        const loaded = batch.load(index, COMMAND_BYTES);
        if (loaded < 0) {
          batch.done = index;
          return loaded;
        }
        first = index;
        end = index + loaded;
      }
      const at = (index - first) * COMMAND_WORDS;
      const converted = convertCommand(this, words, at, this.#batch, waiting * COMMAND_WORDS);
      if (converted < 0) {
        batch.done = index;
        return converted;
      }
      index++;
      waiting++;
      if (index < count && waiting < BATCH) continue;
      const issued = this.#issue(waiting);
      if (issued < 0) {
        batch.done = index - 1;
        return issued;
      }
      waiting = 0;
    }
    batch.done = count;
    return 0;
  }

  /** The first commands of the batch, with a CMD_SYNC behind them that is waited for. */
  #issue(commands: number): number {
    const { queue } = this.smmu;
    const words = this.#batch;
    for (let at = 0; at < commands * COMMAND_WORDS; at += COMMAND_WORDS) {
      queue.pushHalves(words[at]!, words[at + 1]!, words[at + 2]!, words[at + 3]!);
    }
    return queue.sync();
  }

  get vmid(): number {
    return this.parent.tag;
  }

  streamOf(virtualId: number): number {
    return this.core.findDevice(virtualId)?.deviceId ?? -1;
  }

  /** The VMID is the parent's, and what is cached under it goes when the parent's last device leaves. */
  destroy(): void {
    if (this.#nestedDomains > 0) throw new Error("a vIOMMU is destroyed under its nested domains");
    this.parent.removeNested(this.attachments);
    this.driver.live.destroyed("viommu backend");
  }

  saveState(): StateRecord {
    return { nestedDomains: this.#nestedDomains };
  }

  restoreState(state: StateReader): void {
    this.#nestedDomains = state.number("nestedDomains");
  }

  *stateParts(): Generator<readonly [string, Stateful]> {
    yield ["attachments", this.attachments];
  }
}
