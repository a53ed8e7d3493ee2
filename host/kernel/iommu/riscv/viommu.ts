// The driver's half of a RISC-V vIOMMU: a slice of one IOMMU over one NEST_PARENT domain, with a GSCID of its own, so that two
// vIOMMUs on one parent never mix the PSCIDs of their guests.
//
// Invalidations are the guest's own commands (16 bytes each), in order. Each is checked and rewritten: the guest's device ids become
// the host's through the vDEVICEs, GV and GSCID are the kernel's. They go to the hardware in one group that ends in the kernel's
// fence; when one is refused, those before it are fenced and counted as done. (SMMUv3 in Linux 7.2 counts converted commands that
// were never issued; that is not copied.)

import { decodeCommand, encodeCommand } from "../../../arch/riscv/commands.ts";
import { EINVAL, EIO, EOPNOTSUPP } from "../../../uapi/errno.ts";
import {
  IOMMU_HWPT_DATA_RISCV,
  IOMMU_VIOMMU_INVALIDATE_DATA_RISCV,
  iommuHwptRiscv,
} from "../../../uapi/riscv-nesting.ts";
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
import type { RiscvIommu } from "./instance.ts";
import { checkGuestContext, RiscvNestedDomain } from "./nested-domain.ts";
import type { RiscvPagingDomain } from "./paging-domain.ts";

/** RISC-V device ids have 24 bits. */
const DEVICE_IDS = 1n << 24n;
const COMMAND_BYTES = 16;
/** Commands handed to the hardware between two fences of the kernel's; also bounds what a DV = 0 expansion may add. */
const GROUP = 1024;

export class RiscvViommu implements ViommuBackend {
  readonly driver: RiscvDriver;
  readonly iommu: RiscvIommu;
  readonly parent: RiscvPagingDomain;
  readonly core: ViommuCore;
  readonly gscid: number;
  /** Devices on nested domains of this vIOMMU. */
  readonly devices = new Set<IommuDevice>();
  #nestedDomains = 0;

  constructor(driver: RiscvDriver, iommu: RiscvIommu, parent: RiscvPagingDomain, gscid: number, core: ViommuCore) {
    this.driver = driver;
    this.iommu = iommu;
    this.parent = parent;
    this.gscid = gscid;
    this.core = core;
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

  deviceJoined(device: IommuDevice): void {
    this.devices.add(device);
  }

  deviceLeft(device: IommuDevice): void {
    this.devices.delete(device);
  }

  // --- invalidation ---

  /** -EINVAL for another type; -EIO for a command that is refused, with the ones before it done; -ETIMEDOUT from the hardware. */
  invalidate(batch: InvalidationBatch): number {
    batch.done = 0;
    if (batch.type !== IOMMU_VIOMMU_INVALIDATE_DATA_RISCV) return -EINVAL;
    let first = 0;
    while (first < batch.count) {
      const next = Math.min(first + GROUP, batch.count);
      let refused = 0;
      let at = first;
      let timeoutAt = -1;
      for (; at < next; at++) {
        const entry = batch.fetch(at, COMMAND_BYTES);
        if (typeof entry === "number") {
          refused = entry;
          break;
        }
        const view = new DataView(entry.buffer, entry.byteOffset, entry.byteLength);
        const commands = this.#rewrite(view.getBigUint64(0, true), view.getBigUint64(8, true));
        if (typeof commands === "number") {
          refused = commands;
          break;
        }
        for (const command of commands) {
          if (timeoutAt < 0 && (command[0] & 0x7fn) === 4n) timeoutAt = at;
          this.iommu.queue.push(command);
        }
      }
      const fenced = this.iommu.queue.fence();
      if (fenced < 0) {
        // What timed out is a device invalidation; the commands before the first one are certainly done.
        batch.done = timeoutAt >= 0 ? timeoutAt : first;
        return fenced;
      }
      batch.done = at;
      if (refused < 0) return refused;
      first = next;
    }
    return 0;
  }

  /** The commands that stand for one of the guest's, or -EIO. */
  #rewrite(word0: bigint, word1: bigint): (readonly [bigint, bigint])[] | number {
    const { name, fields, reservedBits } = decodeCommand(word0, word1);
    if (reservedBits || name === null) return -EIO;
    const field = (key: string): number => Number(fields[key] ?? 0n);
    const { ATS, NL, S } = this.iommu.capabilities;
    switch (name) {
      case "IOTINVAL.VMA":
        if ((field("NL") === 1 && !NL) || (field("S") === 1 && !S)) return -EIO;
        return [[(word0 & ~VMA_HOST_BITS) | (1n << 33n) | (BigInt(this.gscid) << 44n), word1]];
      case "IODIR.INVAL_DDT": {
        if (field("PID") !== 0) return -EIO;
        if (field("DV") === 0) return this.#everyDevice();
        const device = this.#hostId(field("DID"));
        return device < 0 ? -EIO : [encodeCommand("IODIR.INVAL_DDT", { DV: 1, DID: device })];
      }
      case "IODIR.INVAL_PDT": {
        const device = field("DV") === 1 ? this.#hostId(field("DID")) : -1;
        if (device < 0 || field("PID") >= 2 ** this.#processIdBits) return -EIO;
        return [encodeCommand("IODIR.INVAL_PDT", { DV: 1, DID: device, PID: field("PID") })];
      }
      case "ATS.INVAL": {
        if (!ATS) return -EIO;
        const guestId = field("RID") | (field("DSV") === 1 ? field("DSEG") << 16 : 0);
        const device = this.core.findDevice(BigInt(guestId));
        if (device === null) return -EIO;
        // A device without ATS holds nothing and would never answer.
        if (!device.hasAts) return [];
        const segment = { DSV: 1, RID: device.deviceId & 0xffff, DSEG: device.deviceId >>> 16 };
        const [rewritten] = encodeCommand("ATS.INVAL", { ...segment, PID: field("PID"), PV: field("PV") });
        return [[rewritten, word1]];
      }
      default:
        // GVMA needs a second stage, which the guest's IOMMU does not have; page responses go through the fault queue; a fence is
        // the vIOMMU's own.
        return -EIO;
    }
  }

  get #processIdBits(): number {
    const { PD8, PD17, PD20 } = this.iommu.capabilities;
    return PD20 ? 20 : PD17 ? 17 : PD8 ? 8 : 0;
  }

  #everyDevice(): (readonly [bigint, bigint])[] {
    const commands: (readonly [bigint, bigint])[] = [];
    this.core.eachVdevice(({ device }) => {
      commands.push(encodeCommand("IODIR.INVAL_DDT", { DV: 1, DID: device.deviceId }));
    });
    return commands;
  }

  #hostId(guestId: number): number {
    return this.core.findDevice(BigInt(guestId))?.deviceId ?? -1;
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
}

/** GV and GSCID of an IOTINVAL. */
const VMA_HOST_BITS = (1n << 33n) | (0xffffn << 44n);
