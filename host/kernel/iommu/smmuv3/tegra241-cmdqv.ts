// A Tegra241 CMDQV beside an SMMUv3, as Linux drives it (tegra241-cmdqv.c): VINTF 0 with HYP_OWN is the kernel's, whose commands all go to its first
// logical queue once it runs (one processor: Linux takes the one that the processor's number names); the others are for vIOMMUs (tegra241-viommu.ts).
//
//     reset     CMDQV off and on, CMDQ_ALLOC of every VCMDQ: vintf * perVintf + logical; VINTF 0 and its queues on
//     errors    edge → VINTF_ERR_MAP: VINTF 0's queues are recovered, of another VINTF's its vIOMMU is told; nothing of theirs is acknowledged
//
// The hardware wants a VINTF's logical queues allocated in ascending order and freed in descending order.

import { encodeCommand } from "../../../arch/smmuv3/commands.ts";
import {
  ALLOC_ALLOCATED,
  CMDQV_EN,
  CMDQV_PAGE_BYTES,
  CMDQV_PARAM,
  CMDQV_REG,
  VCMDQ_EN,
  VCMDQ_PAGE1_REG,
  VCMDQ_REG,
  VCMDQ_STRIDE,
  VINTF_EN,
  VINTF_HYP_OWN,
  VINTF_REG,
  VINTF_STRIDE,
  vintfPage0,
  vintfPage1,
} from "../../../arch/smmuv3/tegra241-cmdqv.ts";
import type { HpaPfn } from "../../../base/address.ts";
import type { ClockEvent } from "../../../base/clock.ts";
import type { PhysicalMemory } from "../../../base/memory.ts";
import type { MmioPort } from "../../../base/mmio.ts";
import type { Stateful, StateReader, StateRecord } from "../../../base/state.ts";
import type { CmdqvHardware } from "../../../hw/iommu/smmuv3/cmdqv/port.ts";
import { ENOSPC, ETIMEDOUT } from "../../../uapi/errno.ts";
import type { Drainable, WaitingCall } from "../wait.ts";
import { CommandQueue } from "./command-queue.ts";

/** Linux: ARM_SMMU_POLL_TIMEOUT_US. */
const TIMEOUT_NS = 1e9;
/** The kernel's own VINTF. */
const KERNEL = 0;

export interface CmdqvParts {
  readonly name: string;
  readonly cmdqv: CmdqvHardware;
  /** What is drained by whoever waits. */
  readonly hardware: Drainable;
  readonly wait: WaitingCall;
  readonly memory: PhysicalMemory<HpaPfn>;
  /** Memory for a queue of the kernel's; null: there is none left. */
  readonly ring: () => { readonly base: HpaPfn; readonly log2: number } | null;
  readonly defer: (event: ClockEvent) => void;
}

interface VintfPage {
  readonly registers: MmioPort;
  readonly registerStart: number;
  readonly registerBytes: number;
}

/** Told of the logical queues of a VINTF that stand at errors. */
export type QueueErrors = (map0: bigint, map1: bigint) => void;

export class Tegra241Cmdqv implements Stateful {
  /** CMDQV_PARAM: version; logical queues of a VINTF; pairs of stream ids of a VINTF, log2. */
  readonly version: number;
  readonly log2Queues: number;
  readonly log2Streams: number;
  /** VINTF 0's queues. */
  readonly queues: CommandQueue[] = []; // not state: set up by probing; parts of it
  readonly clockEvents: readonly ClockEvent[];
  readonly #parts: CmdqvParts;
  readonly #registers: MmioPort;
  readonly #vintfs: number;
  /** By VINTF: who has it. */
  readonly #users: (QueueErrors | null)[]; // not state: their holders are the same
  readonly #rings: { readonly base: HpaPfn; readonly log2: number }[] = []; // not state: set up by probing
  readonly #interrupt: ClockEvent;
  /** The interrupt's handler is due. */
  #due = false;
  #main: CommandQueue | null = null; // not state: wiring

  constructor(parts: CmdqvParts) {
    this.#parts = parts;
    this.#registers = parts.cmdqv;
    const param = [BigInt(this.#read(CMDQV_REG.PARAM))];
    const vintfLog2 = Number(CMDQV_PARAM.get(param, "NUM_VINTF_LOG2"));
    this.version = Number(CMDQV_PARAM.get(param, "VER"));
    this.log2Queues = Number(CMDQV_PARAM.get(param, "NUM_VCMDQ_LOG2")) - vintfLog2;
    this.log2Streams = Number(CMDQV_PARAM.get(param, "NUM_SID_PER_VM_LOG2"));
    this.#vintfs = 2 ** vintfLog2;
    this.#users = new Array<QueueErrors | null>(this.#vintfs).fill(null);
    this.#interrupt = {
      owner: `driver of ${parts.name}`,
      name: "CMDQV interrupt",
      fire: () => this.#handleInterrupt(),
    };
    this.clockEvents = [this.#interrupt];
  }

  get queuesOfVintf(): number {
    return 2 ** this.log2Queues;
  }

  get streamsOfVintf(): number {
    return 2 ** this.log2Streams;
  }

  /** Memory for VINTF 0's queues; false: there is not enough. */
  prepare(): boolean {
    for (let logical = 0; logical < this.queuesOfVintf; logical++) {
      const ring = this.#parts.ring();
      if (ring === null) return false;
      this.#rings.push(ring);
    }
    return true;
  }

  /**
   * tegra241_cmdqv_hw_reset: 0 or -ETIMEDOUT. `main` is the SMMU's own queue. Afterwards `queues[0]` takes all of the kernel's commands, if VINTF 0 is the
   * hypervisor's (a virtual machine's CMDQV has HYP_OWN wired to 0: `queues` stays empty).
   */
  start(main: CommandQueue): number {
    this.#main = main;
    const config = this.#read(CMDQV_REG.CONFIG);
    for (const value of [config & ~CMDQV_EN, config | CMDQV_EN]) {
      const result = this.#configure(CMDQV_REG.CONFIG, CMDQV_REG.STATUS, value);
      if (result < 0) return result;
    }
    for (let vintf = 0; vintf < this.#vintfs; vintf++) {
      for (let logical = 0; logical < this.queuesOfVintf; logical++) {
        this.#write(this.#allocationOf(vintf, logical), (logical << 1) | (vintf << 15));
      }
    }
    const enabled = this.#startVintf(KERNEL, 0, true);
    if (enabled < 0) return enabled;
    if ((this.#read(this.#vintf(KERNEL, VINTF_REG.CONFIG)) & VINTF_HYP_OWN) === 0) return 0;
    for (const [logical, ring] of this.#rings.entries()) {
      const result = this.#startOwn(logical, ring.base, ring.log2);
      if (result < 0) return result;
    }
    return 0;
  }

  #startOwn(logical: number, base: HpaPfn, log2Entries: number): number {
    const { hardware, memory, wait } = this.#parts;
    this.startQueue(KERNEL, logical, BigInt(base) << 12n, log2Entries);
    const at = this.#page0(KERNEL, logical);
    const result = this.#configure(at + VCMDQ_REG.CONFIG, at + VCMDQ_REG.STATUS, VCMDQ_EN);
    if (result < 0) return result;
    this.queues.push(
      new CommandQueue({
        hardware,
        registers: this.#registers,
        prod: at + VCMDQ_REG.PROD,
        cons: at + VCMDQ_REG.CONS,
        gerror: at + VCMDQ_REG.GERROR,
        gerrorn: at + VCMDQ_REG.GERRORN,
        memory,
        base,
        log2Entries,
        // Linux: arm_smmu_cmdq_needs_busy_polling.
        signal: "none",
        syncsEachBatch: false,
        wait,
      }),
    );
    return 0;
  }

  shutDown(): void {
    for (let logical = this.queues.length - 1; logical >= 0; logical--) this.stopQueue(KERNEL, logical);
    this.queues.length = 0;
    this.#stopVintf(KERNEL);
  }

  // --- VINTFs ------------------------------------------------------------------------------------------------------------------

  /** A VINTF for a guest under this VMID: its number, -ENOSPC if all are taken, -ETIMEDOUT. */
  takeVintf(vmid: number, errors: QueueErrors): number {
    const vintf = this.#users.indexOf(null, KERNEL + 1);
    if (vintf < 0) return -ENOSPC;
    const started = this.#startVintf(vintf, vmid, false);
    if (started < 0) return started;
    this.#users[vintf] = errors;
    return vintf;
  }

  /** Its queues have been stopped. */
  giveVintfBack(vintf: number): void {
    this.#stopVintf(vintf);
    this.#users[vintf] = null;
  }

  /** The page of a VINTF that a guest may have: indexes, enables and errors of its queues. */
  pageOf(vintf: number): VintfPage {
    return { registers: this.#registers, registerStart: vintfPage0(vintf), registerBytes: CMDQV_PAGE_BYTES };
  }

  /** The guest's name for a stream. */
  nameStream(vintf: number, pair: number, virtualSid: number, sid: number): void {
    this.#write(this.#vintf(vintf, VINTF_REG.SID_REPLACE + 4 * pair), sid);
    this.#write(this.#vintf(vintf, VINTF_REG.SID_MATCH + 4 * pair), (virtualSid << 1) | 1);
  }

  forgetStream(vintf: number, pair: number): void {
    this.#write(this.#vintf(vintf, VINTF_REG.SID_MATCH + 4 * pair), 0);
    this.#write(this.#vintf(vintf, VINTF_REG.SID_REPLACE + 4 * pair), 0);
  }

  /** tegra241_vintf_hw_init: reset, then on; whose it is stands before it is enabled. */
  #startVintf(vintf: number, vmid: number, hypervisor: boolean): number {
    this.#stopVintf(vintf);
    const config = (vmid << 1) | (hypervisor ? VINTF_HYP_OWN : 0);
    this.#write(this.#vintf(vintf, VINTF_REG.CONFIG), config);
    return this.#configureVintf(vintf, config | VINTF_EN);
  }

  #stopVintf(vintf: number): void {
    this.#configureVintf(vintf, 0);
    for (let pair = 0; pair < this.streamsOfVintf; pair++) this.forgetStream(vintf, pair);
  }

  #configureVintf(vintf: number, value: number): number {
    return this.#configure(this.#vintf(vintf, VINTF_REG.CONFIG), this.#vintf(vintf, VINTF_REG.STATUS), value);
  }

  // --- queues ------------------------------------------------------------------------------------------------------------------

  /** Gives a VINTF its next logical queue, reset, at `base`; whose it is enables it. */
  startQueue(vintf: number, logical: number, base: bigint, log2Entries: number): void {
    const allocation = this.#allocationOf(vintf, logical);
    this.#write(allocation, this.#read(allocation) | ALLOC_ALLOCATED);
    this.#resetQueue(vintf, logical);
    this.#write64(this.#page1(vintf, logical) + VCMDQ_PAGE1_REG.BASE, base | BigInt(log2Entries));
  }

  /** Takes a VINTF's last logical queue back. */
  stopQueue(vintf: number, logical: number): void {
    this.#resetQueue(vintf, logical);
    const allocation = this.#allocationOf(vintf, logical);
    this.#write(allocation, this.#read(allocation) & ~ALLOC_ALLOCATED);
  }

  /** tegra241_vcmdq_hw_deinit. */
  #resetQueue(vintf: number, logical: number): void {
    const [page0, page1] = [this.#page0(vintf, logical), this.#page1(vintf, logical)];
    this.#configure(page0 + VCMDQ_REG.CONFIG, page0 + VCMDQ_REG.STATUS, 0);
    // A timeout of an ATC_INV that its user left behind is the next one's otherwise: the SMMU's own CMD_SYNC takes it away.
    this.#main!.push(encodeCommand("SYNC"));
    this.#main!.sync();
    this.#write(page0 + VCMDQ_REG.PROD, 0);
    this.#write(page0 + VCMDQ_REG.CONS, 0);
    this.#write64(page1 + VCMDQ_PAGE1_REG.BASE, 0n);
    this.#write64(page1 + VCMDQ_PAGE1_REG.CONS_INDX_BASE, 0n);
    const error = this.#read(page0 + VCMDQ_REG.GERROR);
    if (error !== this.#read(page0 + VCMDQ_REG.GERRORN)) this.#write(page0 + VCMDQ_REG.GERRORN, error);
  }

  // --- errors ------------------------------------------------------------------------------------------------------------------

  /** The wire had an edge: what is due is looked at outside of what raised it. */
  raised(): void {
    if (this.#due) return;
    this.#due = true;
    this.#parts.defer(this.#interrupt);
  }

  /** tegra241_cmdqv_isr. */
  #handleInterrupt(): void {
    this.#due = false;
    const map = this.#map(CMDQV_REG.VINTF_ERR_MAP);
    for (let vintf = 0; vintf < this.#vintfs; vintf++) {
      if ((map & (1n << BigInt(vintf))) === 0n) continue;
      const queues = this.#vintf(vintf, VINTF_REG.LVCMDQ_ERR_MAP);
      const [map0, map1] = [this.#map(queues), this.#map(queues + 8)];
      if (vintf !== KERNEL) this.#users[vintf]?.(map0, map1);
      else for (const queue of this.queues) queue.recover();
    }
  }

  #map(offset: number): bigint {
    return (BigInt(this.#read(offset + 4)) << 32n) | BigInt(this.#read(offset));
  }

  // --- registers ---------------------------------------------------------------------------------------------------------------

  #configure(config: number, status: number, value: number): number {
    this.#write(config, value);
    const done = (): boolean => ((this.#read(status) ^ value) & 1) === 0;
    return this.#parts.wait(this.#parts.hardware, done, TIMEOUT_NS) ? 0 : -ETIMEDOUT;
  }

  #vintf(vintf: number, offset: number): number {
    return CMDQV_REG.VINTF + vintf * VINTF_STRIDE + offset;
  }

  #allocationOf(vintf: number, logical: number): number {
    return CMDQV_REG.CMDQ_ALLOC + 4 * (vintf * this.queuesOfVintf + logical);
  }

  #page0(vintf: number, logical: number): number {
    return vintfPage0(vintf) + logical * VCMDQ_STRIDE;
  }

  #page1(vintf: number, logical: number): number {
    return vintfPage1(vintf) + logical * VCMDQ_STRIDE;
  }

  #read(offset: number): number {
    return this.#registers.mmioRead(offset, 4) >>> 0;
  }

  #write(offset: number, value: number): void {
    this.#registers.mmioWrite(offset, 4, value >>> 0, 0);
  }

  #write64(offset: number, value: bigint): void {
    this.#registers.mmioWrite(offset, 8, Number(value & 0xffffffffn), Number(value >> 32n));
  }

  // --- state -------------------------------------------------------------------------------------------------------------------

  saveState(): StateRecord {
    return { due: this.#due };
  }

  restoreState(state: StateReader): void {
    this.#due = state.boolean("due");
  }

  *stateParts(): Generator<readonly [string, Stateful]> {
    for (const [logical, queue] of this.queues.entries()) yield [`queue ${logical}`, queue];
  }
}
