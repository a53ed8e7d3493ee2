// The CMDQV as one piece of hardware beside its SMMU: decodes its register map, keeps error maps and interrupt, and works on the queues.
//
//     store to PROD (any view) ─▶ kicked ─ clock, 100 ns ─▶ a batch of each queue with something to fetch, and again while there is
//                                                      └ drain(): all that is the hypervisor's, for a kernel that waits
//     error ─▶ error maps (follow from GERROR and GERRORN) ─▶ edge of the wire, unless VINTF_INT_MASK

import type { Interrupts } from "../../../../arch/smmuv3/parts/interrupts.ts";
import {
  CMDQV_CONFIG_BITS,
  CMDQV_CONFIG_RESET,
  CMDQV_EN,
  CMDQV_PAGE_BYTES,
  CMDQV_REG,
  cmdqvBytes,
  VCMDQ_STRIDE,
  VINTF_REG,
  VINTF_STRIDE,
} from "../../../../arch/smmuv3/tegra241-cmdqv.ts";
import type { ClockEvent } from "../../../../base/clock.ts";
import type { AccessSize, MmioPort } from "../../../../base/mmio.ts";
import { bytesOf, type Stateful, type StateReader, type StateRecord } from "../../../../base/state.ts";
import type { AtsInvalidations } from "../../ats-invalidations.ts";
import type { CommandExecutor } from "../command-executor.ts";
import type { HardwareState } from "../hardware-state.ts";
import type { CmdqvConfiguration } from "./options.ts";
import { QueueAllocation } from "./queue-allocation.ts";
import { DONE, type VcmdqEvents, Vcmdqs, WAITING } from "./vcmdqs.ts";
import { Vintfs } from "./vintfs.ts";

/** CMDQV_PARAM.VER. */
const VERSION = 1;
const WORK_DELAY_NS = 100;
/** Commands of one queue before the next one's turn. */
const BATCH = 64;

export class Cmdqv implements MmioPort, Stateful, VcmdqEvents {
  /** High half of the last 8-byte register read. */
  high = 0;
  readonly registerBytes: number;
  readonly clockEvents: readonly ClockEvent[];
  readonly vcmdqs: Vcmdqs;
  readonly #configuration: CmdqvConfiguration;
  readonly #state: HardwareState;
  readonly #interrupts: Interrupts;
  readonly #ats: AtsInvalidations;
  readonly #vintfs: Vintfs;
  readonly #allocation: QueueAllocation;
  readonly #masks = new Uint32Array(2);
  readonly #work: ClockEvent;
  #config = CMDQV_CONFIG_RESET;
  #scheduled = 0;
  /** The last scheduling was for the end of a wait only: a kick may bring it forward. */
  #waits = false;
  /** Queue whose turn is next in `step`. */
  #turn = 0;
  #draining = false; // not state: within a call

  constructor(
    configuration: CmdqvConfiguration,
    state: HardwareState,
    executor: CommandExecutor,
    ats: AtsInvalidations,
    interrupts: Interrupts,
  ) {
    this.#configuration = configuration;
    this.#state = state;
    this.#ats = ats;
    this.#interrupts = interrupts;
    const queues = 1 << configuration.log2vcmdqs;
    const vintfs = 1 << configuration.log2vintfs;
    this.#vintfs = new Vintfs(vintfs, 1 << configuration.log2vsids);
    this.#allocation = new QueueAllocation(queues, vintfs);
    this.vcmdqs = new Vcmdqs(queues, state, executor, ats, this.#vintfs, this.#allocation, this);
    this.registerBytes = cmdqvBytes(vintfs);
    this.#work = { owner: `iommu ${state.name} cmdqv`, name: "work", fire: () => this.#workDue() };
    this.clockEvents = [this.#work];
  }

  saveState(): StateRecord {
    return {
      config: this.#config,
      masks: bytesOf(this.#masks),
      scheduled: this.#scheduled,
      waits: this.#waits,
      turn: this.#turn,
    };
  }

  restoreState(state: StateReader): void {
    this.#config = state.number("config");
    state.memory("masks", this.#masks);
    this.#scheduled = state.number("scheduled");
    this.#waits = state.boolean("waits");
    this.#turn = state.number("turn");
  }

  *stateParts(): Iterable<readonly [string, Stateful]> {
    yield ["vintfs", this.#vintfs];
    yield ["allocation", this.#allocation];
    yield ["vcmdqs", this.vcmdqs];
  }

  reset(): void {
    this.#config = CMDQV_CONFIG_RESET;
    this.#masks.fill(0);
    this.#vintfs.reset();
    this.#allocation.reset();
    this.vcmdqs.reset();
    this.#state.clock.cancel(this.#scheduled);
    this.#scheduled = 0;
    this.#waits = false;
    this.#turn = 0;
  }

  // --- registers ---------------------------------------------------------------------------------------------------------------

  mmioRead(offset: number, size: AccessSize): number {
    this.high = 0;
    if (size === 8 && (offset & 7) === 0) {
      this.high = this.#read(offset + 4);
      return this.#read(offset);
    }
    return size === 4 && (offset & 3) === 0 ? this.#read(offset) : 0;
  }

  mmioWrite(offset: number, size: AccessSize, lo: number, hi: number): void {
    if (size === 8 && (offset & 7) === 0) {
      this.#write(offset + 4, hi >>> 0);
      this.#write(offset, lo >>> 0);
    } else if (size === 4 && (offset & 3) === 0) this.#write(offset, lo >>> 0);
  }

  #read(offset: number): number {
    if (offset < 0 || offset >= this.registerBytes) return 0;
    if (offset < CMDQV_PAGE_BYTES) return this.#readConfiguration(offset);
    const queue = this.#queueAt(offset);
    const at = offset % VCMDQ_STRIDE;
    if (queue < 0) return 0;
    return isPage1(offset) ? this.vcmdqs.readPage1(queue, at) : this.vcmdqs.read(queue, at);
  }

  #write(offset: number, value: number): void {
    if (offset < 0 || offset >= this.registerBytes) return;
    if (offset < CMDQV_PAGE_BYTES) {
      this.#writeConfiguration(offset, value);
      return;
    }
    const queue = this.#queueAt(offset);
    const at = offset % VCMDQ_STRIDE;
    if (queue < 0) return;
    if (isPage1(offset)) this.vcmdqs.writePage1(queue, at, value);
    else this.vcmdqs.write(queue, at, value);
  }

  /** The queue whose registers stand at an offset of any view, -1 for none: logical queues that are not allocated are not there. */
  #queueAt(offset: number): number {
    const slot = Math.floor((offset % CMDQV_PAGE_BYTES) / VCMDQ_STRIDE);
    const page = Math.floor(offset / CMDQV_PAGE_BYTES);
    if (page >= 3) return this.#allocation.queueOf((page - 3) >> 1, slot);
    return slot < this.vcmdqs.count ? slot : -1;
  }

  #readConfiguration(offset: number): number {
    if (offset >= CMDQV_REG.VINTF) return this.#readVintf(offset - CMDQV_REG.VINTF);
    if (offset >= CMDQV_REG.CMDQ_ALLOC) {
      const queue = (offset - CMDQV_REG.CMDQ_ALLOC) >> 2;
      return queue < this.vcmdqs.count ? this.#allocation.word(queue) : 0;
    }
    const { log2vcmdqs, log2vintfs, log2vsids } = this.#configuration;
    switch (offset) {
      case CMDQV_REG.CONFIG:
        return this.#config;
      case CMDQV_REG.PARAM:
        return VERSION | (log2vcmdqs << 4) | (log2vintfs << 8) | (log2vsids << 12);
      case CMDQV_REG.STATUS:
        return this.vcmdqs.on ? 1 : 0;
      case CMDQV_REG.VINTF_ERR_MAP:
      case CMDQV_REG.VINTF_ERR_MAP + 4:
        return this.#vintfErrors((offset - CMDQV_REG.VINTF_ERR_MAP) * 8);
      case CMDQV_REG.VINTF_INT_MASK:
      case CMDQV_REG.VINTF_INT_MASK + 4:
        return this.#masks[(offset - CMDQV_REG.VINTF_INT_MASK) >> 2]!;
    }
    const word = (offset - CMDQV_REG.CMDQ_ERR_MAP) >> 2;
    return word >= 0 && word < 4 ? this.#queueErrors(word * 32) : 0;
  }

  #readVintf(offset: number): number {
    const vintf = Math.floor(offset / VINTF_STRIDE);
    const at = offset % VINTF_STRIDE;
    const vintfs = this.#vintfs;
    if (vintf >= vintfs.count) return 0;
    if (at === VINTF_REG.CONFIG) return vintfs.config(vintf);
    if (at === VINTF_REG.STATUS) return this.#vintfStatus(vintf);
    if (at >= VINTF_REG.LVCMDQ_ERR_MAP) return this.#logicalErrors(vintf, (at - VINTF_REG.LVCMDQ_ERR_MAP) * 8);
    if (at >= VINTF_REG.SID_REPLACE) return vintfs.replacement(vintf, (at - VINTF_REG.SID_REPLACE) >> 2);
    return at >= VINTF_REG.SID_MATCH ? vintfs.match(vintf, (at - VINTF_REG.SID_MATCH) >> 2) : 0;
  }

  #vintfStatus(vintf: number): number {
    const enabled = this.vcmdqs.on && this.#vintfs.enabled(vintf);
    return (enabled ? 1 : 0) | (this.#failing(vintf) ? 1 << 1 : 0) | (this.#allocation.count(vintf) << 16);
  }

  #writeConfiguration(offset: number, value: number): void {
    if (offset >= CMDQV_REG.VINTF) {
      this.#writeVintf(offset - CMDQV_REG.VINTF, value);
      return;
    }
    if (offset >= CMDQV_REG.CMDQ_ALLOC) {
      const queue = (offset - CMDQV_REG.CMDQ_ALLOC) >> 2;
      if (queue >= this.vcmdqs.count) return;
      this.#allocation.write(queue, value);
      this.vcmdqs.conditionsChanged(queue);
    } else if (offset === CMDQV_REG.CONFIG) {
      this.#config = value & CMDQV_CONFIG_BITS;
      this.vcmdqs.setOn((value & CMDQV_EN) !== 0);
    } else if (offset === CMDQV_REG.VINTF_INT_MASK || offset === CMDQV_REG.VINTF_INT_MASK + 4) {
      this.#masks[(offset - CMDQV_REG.VINTF_INT_MASK) >> 2] = value;
    }
  }

  #writeVintf(offset: number, value: number): void {
    const vintf = Math.floor(offset / VINTF_STRIDE);
    const at = offset % VINTF_STRIDE;
    const vintfs = this.#vintfs;
    if (vintf >= vintfs.count) return;
    if (at === VINTF_REG.CONFIG) {
      vintfs.configure(vintf, value);
      for (let logical = 0; logical < this.#allocation.count(vintf); logical++) {
        this.vcmdqs.conditionsChanged(this.#allocation.queueOf(vintf, logical));
      }
    } else if (at >= VINTF_REG.LVCMDQ_ERR_MAP) return;
    else if (at >= VINTF_REG.SID_REPLACE) vintfs.setReplacement(vintf, (at - VINTF_REG.SID_REPLACE) >> 2, value);
    else if (at >= VINTF_REG.SID_MATCH) vintfs.setMatch(vintf, (at - VINTF_REG.SID_MATCH) >> 2, value);
  }

  // --- errors ------------------------------------------------------------------------------------------------------------------

  failed(queue: number): void {
    const vintf = this.#allocation.vintfOf(queue);
    if (vintf >= 0 && (this.#masks[vintf >> 5]! & (1 << (vintf & 31))) === 0) this.#interrupts.cmdqvError();
  }

  #failing(vintf: number): boolean {
    for (let logical = 0; logical < this.#allocation.count(vintf); logical++) {
      if (this.vcmdqs.errors(this.#allocation.queueOf(vintf, logical)) !== 0) return true;
    }
    return false;
  }

  #vintfErrors(first: number): number {
    let map = 0;
    for (let vintf = first; vintf < Math.min(first + 32, this.#vintfs.count); vintf++) {
      if (this.#failing(vintf)) map |= 1 << (vintf - first);
    }
    return map >>> 0;
  }

  #queueErrors(first: number): number {
    let map = 0;
    for (let queue = first; queue < Math.min(first + 32, this.vcmdqs.count); queue++) {
      if (this.vcmdqs.errors(queue) !== 0) map |= 1 << (queue - first);
    }
    return map >>> 0;
  }

  #logicalErrors(vintf: number, first: number): number {
    let map = 0;
    for (let logical = first; logical < Math.min(first + 32, this.#allocation.count(vintf)); logical++) {
      if (this.vcmdqs.errors(this.#allocation.queueOf(vintf, logical)) !== 0) map |= 1 << (logical - first);
    }
    return map >>> 0;
  }

  // --- work --------------------------------------------------------------------------------------------------------------------

  kicked(): void {
    if (this.#waits) {
      this.#state.clock.cancel(this.#scheduled);
      this.#scheduled = 0;
      this.#waits = false;
    }
    if (this.#scheduled === 0) this.#scheduled = this.#state.clock.schedule(WORK_DELAY_NS, this.#work);
  }

  /** An ATS invalidation was completed: what waits for it is looked at again. */
  invalidationCompleted(): void {
    if (this.#waits) this.kicked();
  }

  /** One command of the queue whose turn it is. */
  step(): boolean {
    for (let tried = 0; tried < this.vcmdqs.count; tried++) {
      const queue = this.#turn;
      this.#turn = (this.#turn + 1) % this.vcmdqs.count;
      if (this.vcmdqs.step(queue) === DONE) return true;
    }
    return false;
  }

  /** The hypervisor's queues until there is nothing left to do in them; a guest's are nobody's to wait for. */
  drain(): void {
    if (this.#draining) return;
    this.#draining = true;
    for (let vintf = 0; vintf < this.#vintfs.count; vintf++) {
      if (!this.#vintfs.hypervisorOwned(vintf)) continue;
      for (let logical = 0; logical < this.#allocation.count(vintf); logical++) {
        const queue = this.#allocation.queueOf(vintf, logical);
        for (let left = this.vcmdqs.ready(queue); left > 0 && this.vcmdqs.step(queue) === DONE; left--) {}
      }
    }
    this.#draining = false;
  }

  #workDue(): void {
    this.#scheduled = 0;
    this.#waits = false;
    let more = false;
    let waiting = false;
    for (let queue = 0; queue < this.vcmdqs.count; queue++) {
      let outcome: number = DONE;
      for (let left = BATCH; left > 0 && outcome === DONE; left--) outcome = this.vcmdqs.step(queue);
      more ||= outcome === DONE;
      waiting ||= outcome === WAITING;
    }
    if (more) {
      this.kicked();
      return;
    }
    const deadline = this.#ats.nextDeadline;
    if (!waiting || deadline === Number.POSITIVE_INFINITY || this.#scheduled !== 0) return;
    this.#waits = true;
    this.#scheduled = this.#state.clock.schedule(Math.max(0, deadline - this.#state.clock.now), this.#work);
  }
}

function isPage1(offset: number): boolean {
  // Pages 0 and 1 alternate behind the configuration page.
  return (Math.floor(offset / CMDQV_PAGE_BYTES) & 1) === 0;
}
