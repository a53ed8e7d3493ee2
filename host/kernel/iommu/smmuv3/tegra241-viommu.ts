// A vIOMMU with command queues of the guest's own (Linux: struct tegra241_vintf): an SMMUv3 vIOMMU that has a VINTF of the CMDQV, under its VMID.
//
//     VIOMMU_ALLOC      a VINTF, enabled, without queues; its page 0 for mmap
//     VDEVICE_ALLOC     a pair of SID_MATCH and SID_REPLACE
//     HW_QUEUE_ALLOC    the next logical queue, at memory that stays pinned; the guest enables it
//     errors            a vEVENT with the two maps; the guest acknowledges by its page
//
// What queues of a guest do not take comes as invalidations, as on any SMMUv3 vIOMMU (viommu.ts).

import type { StateReader, StateRecord } from "../../../base/state.ts";
import { EEXIST, EINVAL, EIO, ENOSPC, EOPNOTSUPP } from "../../../uapi/errno.ts";
import {
  IOMMU_HW_QUEUE_TYPE_TEGRA241_CMDQV,
  IOMMU_VEVENTQ_TYPE_TEGRA241_CMDQV,
  IOMMU_VIOMMU_TYPE_TEGRA241_CMDQV,
  iommuVeventTegra241Cmdqv,
  iommuViommuTegra241Cmdqv,
} from "../../../uapi/smmuv3-nesting.ts";
import type {
  HwQueueBackend,
  HwQueueCore,
  HwQueueOperations,
  UserData,
  VdeviceBackendView,
  ViommuCore,
} from "../driver.ts";
import type { Smmuv3Driver } from "./driver.ts";
import type { Smmuv3Instance } from "./instance.ts";
import type { Smmuv3PagingDomain } from "./paging-domain.ts";
import type { Tegra241Cmdqv } from "./tegra241-cmdqv.ts";
import { Smmuv3Viommu } from "./viommu.ts";

const COMMAND_LOG2 = 4;
const LEAST_BYTES = 32n;
/** VCMDQ_BASE.ADDR. */
const BASE_ADDRESS = 0x0000_ffff_ffff_ffe0n;
const STREAM_ID_LIMIT = 1n << 20n;

export class Tegra241Viommu extends Smmuv3Viommu {
  readonly reply: Uint8Array;
  readonly hwQueue: HwQueueOperations;
  readonly #cmdqv: Tegra241Cmdqv;
  readonly #vintf: number;
  /** Guest's StreamID by pair of registers; null: free. */
  readonly #streams: (bigint | null)[];
  /** The first logical queues, allocated in this order. */
  readonly #queues: Tegra241Queue[] = []; // not state: its holders are the same

  private constructor(
    driver: Smmuv3Driver,
    smmu: Smmuv3Instance,
    parent: Smmuv3PagingDomain,
    core: ViommuCore,
    cmdqv: Tegra241Cmdqv,
    vintf: number,
    offset: bigint,
    length: number,
  ) {
    super(driver, smmu, parent, core);
    this.#cmdqv = cmdqv;
    this.#vintf = vintf;
    this.#streams = new Array<bigint | null>(cmdqv.streamsOfVintf).fill(null);
    this.reply = iommuViommuTegra241Cmdqv.encode({
      out_vintf_mmap_offset: offset,
      out_vintf_mmap_length: BigInt(length),
    });
    this.hwQueue = {
      supports: (type) => type === IOMMU_HW_QUEUE_TYPE_TEGRA241_CMDQV,
      init: (index, _iova, length, physicalBase, queue) => this.#initQueue(index, length, physicalBase, queue),
    };
  }

  /** -EINVAL without room for the reply or with a wrong size, -ENOSPC without a free VINTF, -ENOMEM, -ETIMEDOUT. */
  static create(
    driver: Smmuv3Driver,
    smmu: Smmuv3Instance,
    parent: Smmuv3PagingDomain,
    data: UserData | null,
    core: ViommuCore,
  ): Tegra241Viommu | number {
    const { cmdqv } = smmu;
    if (cmdqv === null) return -EOPNOTSUPP;
    if (data === null || data.type !== IOMMU_VIOMMU_TYPE_TEGRA241_CMDQV) return -EINVAL;
    const copied = data.copy(iommuViommuTegra241Cmdqv.bytes, iommuViommuTegra241Cmdqv.bytes);
    if (typeof copied === "number") return copied;
    const vintf = cmdqv.takeVintf(parent.tag, (map0, map1) => {
      const event = iommuVeventTegra241Cmdqv.encode({ lvcmdq_err_map0: map0, lvcmdq_err_map1: map1 });
      core.reportEvent(IOMMU_VEVENTQ_TYPE_TEGRA241_CMDQV, event);
    });
    if (vintf < 0) return vintf;
    const page = cmdqv.pageOf(vintf);
    const offset = core.exportRegion?.(page) ?? -EOPNOTSUPP;
    if (typeof offset === "number") {
      cmdqv.giveVintfBack(vintf);
      return offset;
    }
    driver.live.created("vintf");
    return new Tegra241Viommu(driver, smmu, parent, core, cmdqv, vintf, offset, page.registerBytes);
  }

  /** -EINVAL for a StreamID that is wider than the registers have it, -ENOSPC if all pairs are taken. */
  vdeviceInit({ device, virtualId }: VdeviceBackendView): number {
    if (virtualId >= STREAM_ID_LIMIT) return -EINVAL;
    const pair = this.#streams.indexOf(null);
    if (pair < 0) return -ENOSPC;
    this.#streams[pair] = virtualId;
    this.#cmdqv.nameStream(this.#vintf, pair, Number(virtualId), this.smmu.streamOf(device));
    return 0;
  }

  vdeviceDestroy({ virtualId }: VdeviceBackendView): void {
    const pair = this.#streams.indexOf(virtualId);
    if (pair < 0) return;
    this.#streams[pair] = null;
    this.#cmdqv.forgetStream(this.#vintf, pair);
  }

  /** tegra241_vintf_alloc_lvcmdq_user, its checks in its order. */
  #initQueue(index: number, length: bigint, base: bigint, core: HwQueueCore): HwQueueBackend | number {
    if (index >= this.#cmdqv.queuesOfVintf) return -EINVAL;
    if (index < this.#queues.length) return -EEXIST;
    if (index > this.#queues.length) return -EIO;
    const most = 1n << BigInt(this.smmu.features.CMDQS + COMMAND_LOG2);
    if ((length & (length - 1n)) !== 0n || length < LEAST_BYTES || length > most) return -EINVAL;
    if ((base & ~BASE_ADDRESS) !== 0n || (base & (length - 1n)) !== 0n) return -EINVAL;
    const earlier = this.#queues.at(-1);
    // The last one goes first.
    const depends = earlier === undefined ? 0 : core.dependOn(earlier);
    if (depends < 0) return depends;
    this.#cmdqv.startQueue(this.#vintf, index, base, length.toString(2).length - 1 - COMMAND_LOG2);
    const queue = new Tegra241Queue(() => {
      this.#cmdqv.stopQueue(this.#vintf, index);
      this.#queues.pop();
    });
    this.#queues.push(queue);
    return queue;
  }

  override destroy(): void {
    if (this.#queues.length > 0) throw new Error("a VINTF is given back with queues");
    this.#cmdqv.giveVintfBack(this.#vintf);
    this.driver.live.destroyed("vintf");
    super.destroy();
  }

  override saveState(): StateRecord {
    return {
      ...super.saveState(),
      vintf: this.#vintf,
      streams: this.#streams.map((virtualId) => (virtualId === null ? null : { virtualId })),
    };
  }

  override restoreState(state: StateReader): void {
    super.restoreState(state);
    if (state.number("vintf") !== this.#vintf) state.fail("vintf", `is not ${this.#vintf}`);
    const streams = state.places("streams");
    if (streams.length !== this.#streams.length) state.fail("streams", `are not ${this.#streams.length}`);
    for (const [pair, stream] of streams.entries()) this.#streams[pair] = stream?.bigint("virtualId") ?? null;
  }
}

// Not state: an object of iommufd's stands for it.
class Tegra241Queue implements HwQueueBackend {
  readonly destroy: () => void;

  constructor(destroy: () => void) {
    this.destroy = destroy;
  }
}
