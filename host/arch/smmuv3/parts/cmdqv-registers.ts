// A CMDQV's register map (tegra241-cmdqv.ts), over queues that somebody else keeps: the hardware (host/hw/iommu/smmuv3/cmdqv), or a guest's CMDQV whose
// queues are the hardware's (vmm/viommu/smmuv3). Error maps follow from the queues' errors.

import type { AccessSize, MmioPort } from "../../../base/mmio.ts";
import { bytesOf, type Stateful, type StateReader, type StateRecord } from "../../../base/state.ts";
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
} from "../tegra241-cmdqv.ts";
import { QueueAllocation } from "./cmdqv-allocation.ts";
import { Vintfs } from "./cmdqv-vintfs.ts";

/** CMDQV_PARAM by its fields. */
export interface CmdqvShape {
  readonly version: number;
  readonly log2vcmdqs: number;
  readonly log2vintfs: number;
  readonly log2vsids: number;
}

/** The queues, by global index; offsets are from a queue's registers in a page 0, or a page 1. */
export interface QueueRegisters {
  read(queue: number, offset: number): number;
  write(queue: number, offset: number, value: number): void;
  readPage1(queue: number, offset: number): number;
  writePage1(queue: number, offset: number, value: number): void;
  /** Active errors. */
  errors(queue: number): number;
  /** CMDQV_CONFIG.EN. */
  setOn(on: boolean): void;
  /** What a queue needs to run has changed. */
  conditionsChanged(queue: number): void;
}

export class CmdqvRegisters implements MmioPort, Stateful {
  /** High half of the last 8-byte register read. */
  high = 0;
  readonly registerBytes: number;
  readonly vintfs: Vintfs;
  readonly allocation: QueueAllocation;
  readonly #shape: CmdqvShape;
  readonly #count: number;
  readonly #masks = new Uint32Array(2);
  #queues!: QueueRegisters; // not state: wiring
  #config = CMDQV_CONFIG_RESET;

  /** `mayOwn`: VINTFs can be the hypervisor's. */
  constructor(shape: CmdqvShape, mayOwn: boolean) {
    this.#shape = shape;
    this.#count = 1 << shape.log2vcmdqs;
    const vintfs = 1 << shape.log2vintfs;
    this.vintfs = new Vintfs(vintfs, 1 << shape.log2vsids, mayOwn);
    this.allocation = new QueueAllocation(this.#count, vintfs);
    this.registerBytes = cmdqvBytes(vintfs);
  }

  /** Before the first access. */
  set queues(queues: QueueRegisters) {
    this.#queues = queues;
  }

  get on(): boolean {
    return (this.#config & CMDQV_EN) !== 0;
  }

  saveState(): StateRecord {
    return { config: this.#config, masks: bytesOf(this.#masks) };
  }

  restoreState(state: StateReader): void {
    this.#config = state.number("config");
    state.memory("masks", this.#masks);
  }

  *stateParts(): Iterable<readonly [string, Stateful]> {
    yield ["vintfs", this.vintfs];
    yield ["allocation", this.allocation];
  }

  reset(): void {
    this.#config = CMDQV_CONFIG_RESET;
    this.#masks.fill(0);
    this.vintfs.reset();
    this.allocation.reset();
  }

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
    return isPage1(offset) ? this.#queues.readPage1(queue, at) : this.#queues.read(queue, at);
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
    if (isPage1(offset)) this.#queues.writePage1(queue, at, value);
    else this.#queues.write(queue, at, value);
  }

  /** The queue whose registers stand at an offset of any view, -1 for none: logical queues that are not allocated are not there. */
  #queueAt(offset: number): number {
    const slot = Math.floor((offset % CMDQV_PAGE_BYTES) / VCMDQ_STRIDE);
    const page = Math.floor(offset / CMDQV_PAGE_BYTES);
    if (page >= 3) return this.allocation.queueOf((page - 3) >> 1, slot);
    return slot < this.#count ? slot : -1;
  }

  #readConfiguration(offset: number): number {
    if (offset >= CMDQV_REG.VINTF) return this.#readVintf(offset - CMDQV_REG.VINTF);
    if (offset >= CMDQV_REG.CMDQ_ALLOC) {
      const queue = (offset - CMDQV_REG.CMDQ_ALLOC) >> 2;
      return queue < this.#count ? this.allocation.word(queue) : 0;
    }
    const { version, log2vcmdqs, log2vintfs, log2vsids } = this.#shape;
    switch (offset) {
      case CMDQV_REG.CONFIG:
        return this.#config;
      case CMDQV_REG.PARAM:
        return version | (log2vcmdqs << 4) | (log2vintfs << 8) | (log2vsids << 12);
      case CMDQV_REG.STATUS:
        return this.on ? 1 : 0;
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
    const vintfs = this.vintfs;
    if (vintf >= vintfs.count) return 0;
    if (at === VINTF_REG.CONFIG) return vintfs.config(vintf);
    if (at === VINTF_REG.STATUS) return this.#vintfStatus(vintf);
    if (at >= VINTF_REG.LVCMDQ_ERR_MAP) return this.#logicalErrors(vintf, (at - VINTF_REG.LVCMDQ_ERR_MAP) * 8);
    if (at >= VINTF_REG.SID_REPLACE) return vintfs.replacement(vintf, (at - VINTF_REG.SID_REPLACE) >> 2);
    return at >= VINTF_REG.SID_MATCH ? vintfs.match(vintf, (at - VINTF_REG.SID_MATCH) >> 2) : 0;
  }

  #vintfStatus(vintf: number): number {
    const enabled = this.on && this.vintfs.enabled(vintf);
    return (enabled ? 1 : 0) | (this.#failing(vintf) ? 1 << 1 : 0) | (this.allocation.count(vintf) << 16);
  }

  #writeConfiguration(offset: number, value: number): void {
    if (offset >= CMDQV_REG.VINTF) {
      this.#writeVintf(offset - CMDQV_REG.VINTF, value);
      return;
    }
    if (offset >= CMDQV_REG.CMDQ_ALLOC) {
      const queue = (offset - CMDQV_REG.CMDQ_ALLOC) >> 2;
      if (queue >= this.#count) return;
      this.allocation.write(queue, value);
      this.#queues.conditionsChanged(queue);
    } else if (offset === CMDQV_REG.CONFIG) {
      this.#config = value & CMDQV_CONFIG_BITS;
      this.#queues.setOn((value & CMDQV_EN) !== 0);
    } else if (offset === CMDQV_REG.VINTF_INT_MASK || offset === CMDQV_REG.VINTF_INT_MASK + 4) {
      this.#masks[(offset - CMDQV_REG.VINTF_INT_MASK) >> 2] = value;
    }
  }

  #writeVintf(offset: number, value: number): void {
    const vintf = Math.floor(offset / VINTF_STRIDE);
    const at = offset % VINTF_STRIDE;
    const vintfs = this.vintfs;
    if (vintf >= vintfs.count) return;
    if (at === VINTF_REG.CONFIG) {
      vintfs.configure(vintf, value);
      for (let logical = 0; logical < this.allocation.count(vintf); logical++) {
        this.#queues.conditionsChanged(this.allocation.queueOf(vintf, logical));
      }
    } else if (at >= VINTF_REG.LVCMDQ_ERR_MAP) return;
    else if (at >= VINTF_REG.SID_REPLACE) vintfs.setReplacement(vintf, (at - VINTF_REG.SID_REPLACE) >> 2, value);
    else if (at >= VINTF_REG.SID_MATCH) vintfs.setMatch(vintf, (at - VINTF_REG.SID_MATCH) >> 2, value);
  }

  // --- errors ------------------------------------------------------------------------------------------------------------------

  /** An error of this queue is not signalled: it is nobody's, or its VINTF is masked. */
  isSilent(queue: number): boolean {
    const vintf = this.allocation.vintfOf(queue);
    return vintf < 0 || (this.#masks[vintf >> 5]! & (1 << (vintf & 31))) !== 0;
  }

  #failing(vintf: number): boolean {
    for (let logical = 0; logical < this.allocation.count(vintf); logical++) {
      if (this.#queues.errors(this.allocation.queueOf(vintf, logical)) !== 0) return true;
    }
    return false;
  }

  #vintfErrors(first: number): number {
    let map = 0;
    for (let vintf = first; vintf < Math.min(first + 32, this.vintfs.count); vintf++) {
      if (this.#failing(vintf)) map |= 1 << (vintf - first);
    }
    return map >>> 0;
  }

  #queueErrors(first: number): number {
    let map = 0;
    for (let queue = first; queue < Math.min(first + 32, this.#count); queue++) {
      if (this.#queues.errors(queue) !== 0) map |= 1 << (queue - first);
    }
    return map >>> 0;
  }

  #logicalErrors(vintf: number, first: number): number {
    let map = 0;
    for (let logical = first; logical < Math.min(first + 32, this.allocation.count(vintf)); logical++) {
      if (this.#queues.errors(this.allocation.queueOf(vintf, logical)) !== 0) map |= 1 << (logical - first);
    }
    return map >>> 0;
  }
}

function isPage1(offset: number): boolean {
  // Pages 0 and 1 alternate behind the configuration page.
  return (Math.floor(offset / CMDQV_PAGE_BYTES) & 1) === 0;
}
