// Caches of device contexts and process contexts, decoded (§3.8).
//
// A cached device context has a stamp of its own, given when it is loaded; process contexts are keyed by that stamp and their
// process_id. So IODIR.INVAL_DDT of a device forgets its process contexts too (a new load has a new stamp), and INVAL_DDT of all
// devices raises one floor. With no cache configured one scratch slot is refilled every time.

import { AddressSpace } from "../../../arch/riscv/address-space.ts";
import type { StructureRules } from "../../../arch/riscv/capabilities.ts";
import {
  TC_DPE,
  TC_DTF,
  TC_EN_ATS,
  TC_EN_PRI,
  TC_PDTV,
  TC_PRPR,
  TC_SBE,
  TC_SXL,
  TC_T2GPA,
} from "../../../arch/riscv/device-context.ts";
import { PC_ENS, PC_SUM, processIdBits } from "../../../arch/riscv/process-context.ts";
import type { Stateful, StateReader, StateRecord } from "../../../base/state.ts";
import { AddressTag, type AddressTags, HOST, SECOND_STAGE_ONLY, type Stamps } from "./address-tags.ts";

/** Stands where no context has been loaded yet; holds nothing. */
const NO_TAG = new AddressTag(HOST, SECOND_STAGE_ONLY, 0, null, 0);

/** An address space with the tag its cached translations carry. */
export class CachedSpace extends AddressSpace {
  gscid = HOST;
  pscid = SECOND_STAGE_ONLY;
  variant = 0;
  tag: AddressTag = NO_TAG; // not state: found again by findTag
  /** Both stages Bare and no MSI recognition: addresses pass unchanged. */
  transparent = false;

  /** Settles tag and transparency once stages are set. */
  settle(tags: AddressTags, gscid: number, pscid: number, variant: number): void {
    this.gscid = this.secondLevels === 0 ? HOST : gscid;
    this.pscid = this.firstLevels === 0 ? SECOND_STAGE_ONLY : pscid;
    this.variant = variant;
    this.transparent = this.firstLevels === 0 && this.secondLevels === 0 && variant === 0;
    this.tag = tags.tagFor(this.gscid, this.pscid, variant);
  }

  override saveState(): StateRecord {
    return {
      ...super.saveState(),
      gscid: this.gscid,
      pscid: this.pscid,
      variant: this.variant,
      transparent: this.transparent,
    };
  }

  override restoreState(state: StateReader): void {
    super.restoreState(state);
    this.gscid = state.number("gscid");
    this.pscid = state.number("pscid");
    this.variant = state.number("variant");
    this.transparent = state.boolean("transparent");
  }

  /** After a restore: the tag that stands for this space; false if there is none. */
  findTag(tags: AddressTags): boolean {
    const tag = tags.find(this.gscid, this.pscid, this.variant);
    this.tag = tag ?? NO_TAG;
    return tag !== null;
  }
}

export class CachedDevice implements Stateful {
  deviceId = -1;
  /** 0: empty. */
  stamp = 0;
  dtf = false;
  enAts = false;
  enPri = false;
  t2gpa = false;
  prpr = false;
  pdtv = false;
  dpe = false;
  sbe = false;
  sxl = false;
  /** Process directory: levels (0 Bare), root frame (guest-physical unless the second stage is Bare), process_id bits. */
  processLevels = 0;
  processRoot = 0;
  processBits = 0;
  gscid = 0;
  rcid = 0;
  mcid = 0;
  /** Frame of the MSI page table. */
  msiRoot = 0;
  /** For requests without process_id (PDTV = 0, or PDTV = 1 without DPE). */
  readonly space = new CachedSpace();
  /** Second stage alone: translated requests under T2GPA, and process directories Bare. */
  readonly secondStageOnly = new CachedSpace();

  /** Decodes a sound device context (halves). */
  load(deviceId: number, stamp: number, dc: Uint32Array, rules: StructureRules, tags: AddressTags): void {
    const tc = dc[0]!;
    this.deviceId = deviceId;
    this.stamp = stamp;
    this.dtf = (tc & TC_DTF) !== 0;
    this.enAts = (tc & TC_EN_ATS) !== 0;
    this.enPri = (tc & TC_EN_PRI) !== 0;
    this.t2gpa = (tc & TC_T2GPA) !== 0;
    this.prpr = (tc & TC_PRPR) !== 0;
    this.pdtv = (tc & TC_PDTV) !== 0;
    this.dpe = (tc & TC_DPE) !== 0;
    this.sbe = (tc & TC_SBE) !== 0;
    this.sxl = (tc & TC_SXL) !== 0;
    this.gscid = (dc[3]! >>> 12) & 0xffff;
    this.rcid = (dc[5]! >>> 8) & 0xfff;
    this.mcid = dc[5]! >>> 20;
    this.msiRoot = (dc[9]! & 0xfff) * 0x100000000 + dc[8]!;
    const fscMode = dc[7]! >>> 28;
    this.processLevels = this.pdtv ? fscMode : 0;
    this.processRoot = (dc[7]! & 0xfff) * 0x100000000 + dc[6]!;
    this.processBits = this.pdtv ? processIdBits(fscMode) : 0;
    this.secondStageOnly.setSecondStage(dc, rules);
    const variant = this.secondStageOnly.recognizesMessages ? this.#messageVariant() : 0;
    this.secondStageOnly.settle(tags, this.gscid, SECOND_STAGE_ONLY, variant);
    this.space.copySecondStage(this.secondStageOnly);
    if (this.pdtv) this.space.setBareFirstStage();
    else this.space.setFirstStage(dc[6]!, dc[7]!, this.sxl, false);
    this.space.settle(tags, this.gscid, dc[4]! >>> 12, variant);
  }

  /** A small number that differs (nearly always) between devices with different MSI tables; never 0. */
  #messageVariant(): number {
    let hash = this.msiRoot | 0;
    const space = this.secondStageOnly;
    hash = Math.imul(hash ^ space.messageMaskLow, 0x01000193) ^ (hash >>> 15);
    hash = Math.imul(hash ^ space.messageMaskHigh, 0x01000193) ^ (hash >>> 15);
    hash = Math.imul(hash ^ space.messagePatternLow, 0x01000193) ^ (hash >>> 15);
    hash = Math.imul(hash ^ space.messagePatternHigh, 0x01000193) ^ (hash >>> 15);
    return (hash >>> 1) + 1;
  }

  saveState(): StateRecord {
    return {
      deviceId: this.deviceId,
      stamp: this.stamp,
      dtf: this.dtf,
      enAts: this.enAts,
      enPri: this.enPri,
      t2gpa: this.t2gpa,
      prpr: this.prpr,
      pdtv: this.pdtv,
      dpe: this.dpe,
      sbe: this.sbe,
      sxl: this.sxl,
      processLevels: this.processLevels,
      processRoot: this.processRoot,
      processBits: this.processBits,
      gscid: this.gscid,
      rcid: this.rcid,
      mcid: this.mcid,
      msiRoot: this.msiRoot,
      space: this.space.saveState(),
      secondStageOnly: this.secondStageOnly.saveState(),
    };
  }

  restoreState(state: StateReader): void {
    this.deviceId = state.number("deviceId");
    this.stamp = state.number("stamp");
    this.dtf = state.boolean("dtf");
    this.enAts = state.boolean("enAts");
    this.enPri = state.boolean("enPri");
    this.t2gpa = state.boolean("t2gpa");
    this.prpr = state.boolean("prpr");
    this.pdtv = state.boolean("pdtv");
    this.dpe = state.boolean("dpe");
    this.sbe = state.boolean("sbe");
    this.sxl = state.boolean("sxl");
    this.processLevels = state.number("processLevels");
    this.processRoot = state.number("processRoot");
    this.processBits = state.number("processBits");
    this.gscid = state.number("gscid");
    this.rcid = state.number("rcid");
    this.mcid = state.number("mcid");
    this.msiRoot = state.number("msiRoot");
    this.space.restoreState(state.record("space"));
    this.secondStageOnly.restoreState(state.record("secondStageOnly"));
  }
}

export class CachedProcess implements Stateful {
  deviceStamp = 0;
  processId = -1;
  ens = false;
  readonly space = new CachedSpace();

  /** Decodes a sound process context (halves) of `device`. */
  load(device: CachedDevice, processId: number, pc: Uint32Array, tags: AddressTags): void {
    const ta = pc[0]!;
    this.deviceStamp = device.stamp;
    this.processId = processId;
    this.ens = (ta & PC_ENS) !== 0;
    this.space.copySecondStage(device.secondStageOnly);
    this.space.setFirstStage(pc[2]!, pc[3]!, device.sxl, (ta & PC_SUM) !== 0);
    this.space.settle(tags, device.gscid, ta >>> 12, device.secondStageOnly.variant);
  }

  saveState(): StateRecord {
    return {
      deviceStamp: this.deviceStamp,
      processId: this.processId,
      ens: this.ens,
      space: this.space.saveState(),
    };
  }

  restoreState(state: StateReader): void {
    this.deviceStamp = state.number("deviceStamp");
    this.processId = state.number("processId");
    this.ens = state.boolean("ens");
    this.space.restoreState(state.record("space"));
  }
}

function roundUp(entries: number): number {
  return 2 ** Math.ceil(Math.log2(Math.max(1, entries)));
}

export class DeviceContextCache implements Stateful {
  readonly #tags: AddressTags;
  readonly #slots: CachedDevice[];
  readonly #ways: number;
  readonly #setMask: number;
  readonly #enabled: boolean;
  readonly #stamps: Stamps;
  /** Contexts with stamps up to here are invalid. */
  #floor = 0;
  #victim = 0;
  /** The slot found last: devices transfer in bursts. */
  #last: CachedDevice; // not state: our speed

  constructor(entries: number, stamps: Stamps, tags: AddressTags) {
    this.#tags = tags;
    const rounded = roundUp(entries);
    this.#enabled = entries > 0;
    this.#ways = Math.min(4, rounded);
    this.#setMask = rounded / this.#ways - 1;
    this.#slots = Array.from({ length: rounded }, () => new CachedDevice());
    // With no cache nothing is ever found: a slot that is never loaded stands here for good.
    this.#last = new CachedDevice();
    this.#stamps = stamps;
  }

  find(deviceId: number): CachedDevice | null {
    const last = this.#last;
    if (last.deviceId === deviceId && last.stamp > this.#floor) return last;
    return this.#search(deviceId);
  }

  #search(deviceId: number): CachedDevice | null {
    if (!this.#enabled) return null;
    const start = ((deviceId ^ (deviceId >>> 6)) & this.#setMask) * this.#ways;
    for (let i = start; i < start + this.#ways; i++) {
      const slot = this.#slots[i]!;
      if (slot.deviceId === deviceId && slot.stamp > this.#floor) {
        this.#last = slot;
        return slot;
      }
    }
    return null;
  }

  /** Loads a context over some slot of its set and returns it. */
  load(deviceId: number, dc: Uint32Array, rules: StructureRules, tags: AddressTags): CachedDevice {
    const start = ((deviceId ^ (deviceId >>> 6)) & this.#setMask) * this.#ways;
    let chosen = -1;
    for (let i = start; i < start + this.#ways && chosen < 0; i++) {
      const slot = this.#slots[i]!;
      if (slot.deviceId === deviceId || slot.stamp <= this.#floor) chosen = i;
    }
    if (chosen < 0) {
      this.#victim = (this.#victim + 1) & (this.#ways - 1);
      chosen = start + this.#victim;
    }
    const slot = this.#slots[chosen]!;
    slot.load(deviceId, this.#stamps.next(), dc, rules, tags);
    return slot;
  }

  invalidate(deviceId: number): void {
    const start = ((deviceId ^ (deviceId >>> 6)) & this.#setMask) * this.#ways;
    for (let i = start; i < start + this.#ways; i++) {
      const slot = this.#slots[i]!;
      if (slot.deviceId === deviceId) slot.stamp = 0;
    }
  }

  invalidateAll(): void {
    this.#floor = this.#stamps.next();
  }

  clear(): void {
    this.#floor = 0;
    for (const slot of this.#slots) slot.stamp = 0;
  }

  /** The contexts that can be found, by slot: of the others nothing is ever read. */
  saveState(): StateRecord {
    const slots = this.#slots.map((slot) => (slot.stamp > this.#floor ? slot.saveState() : null));
    return { slots, floor: this.#floor, victim: this.#victim };
  }

  restoreState(state: StateReader): void {
    this.#floor = state.number("floor");
    this.#victim = state.number("victim") & (this.#ways - 1);
    eachSlot(state, this.#slots.length, (index, saved) => {
      const slot = this.#slots[index]!;
      slot.deviceId = -1;
      slot.stamp = 0;
      if (saved === null) return;
      slot.restoreState(saved);
      const tagged = slot.space.findTag(this.#tags) && slot.secondStageOnly.findTag(this.#tags);
      if (!tagged) saved.fail("space", "has no tag");
    });
  }
}

export class ProcessContextCache implements Stateful {
  readonly #tags: AddressTags;
  readonly #slots: CachedProcess[];
  readonly #ways: number;
  readonly #setMask: number;
  readonly #enabled: boolean;
  #victim = 0;

  constructor(entries: number, tags: AddressTags) {
    this.#tags = tags;
    const rounded = roundUp(entries);
    this.#enabled = entries > 0;
    this.#ways = Math.min(4, rounded);
    this.#setMask = rounded / this.#ways - 1;
    this.#slots = Array.from({ length: rounded }, () => new CachedProcess());
  }

  #set(deviceStamp: number, processId: number): number {
    return ((processId ^ (processId >>> 8) ^ Math.imul(deviceStamp, 0x9e3779b1)) & this.#setMask) * this.#ways;
  }

  find(device: CachedDevice, processId: number): CachedProcess | null {
    const start = this.#set(device.stamp, processId);
    for (let i = start; i < start + this.#ways; i++) {
      const slot = this.#slots[i]!;
      if (slot.processId === processId && slot.deviceStamp === device.stamp) return this.#enabled ? slot : null;
    }
    return null;
  }

  load(device: CachedDevice, processId: number, pc: Uint32Array, tags: AddressTags): CachedProcess {
    const start = this.#set(device.stamp, processId);
    let chosen = -1;
    for (let i = start; i < start + this.#ways && chosen < 0; i++) {
      const slot = this.#slots[i]!;
      if (slot.processId === processId && slot.deviceStamp === device.stamp) chosen = i;
    }
    if (chosen < 0) {
      this.#victim = (this.#victim + 1) & (this.#ways - 1);
      chosen = start + this.#victim;
    }
    const slot = this.#slots[chosen]!;
    slot.load(device, processId, pc, tags);
    return slot;
  }

  invalidate(device: CachedDevice, processId: number): void {
    const slot = this.find(device, processId);
    if (slot !== null) slot.deviceStamp = 0;
  }

  clear(): void {
    for (const slot of this.#slots) slot.deviceStamp = 0;
  }

  saveState(): StateRecord {
    const slots = this.#slots.map((slot) => (slot.deviceStamp !== 0 ? slot.saveState() : null));
    return { slots, victim: this.#victim };
  }

  restoreState(state: StateReader): void {
    this.#victim = state.number("victim") & (this.#ways - 1);
    eachSlot(state, this.#slots.length, (index, saved) => {
      const slot = this.#slots[index]!;
      slot.deviceStamp = 0;
      slot.processId = -1;
      if (saved === null) return;
      slot.restoreState(saved);
      if (!slot.space.findTag(this.#tags)) saved.fail("space", "has no tag");
    });
  }
}

/** Calls `restore` for each slot of a cache of `length` with its record, null: empty. */
function eachSlot(
  state: StateReader,
  length: number,
  restore: (index: number, saved: StateReader | null) => void,
): void {
  const slots = state.places("slots");
  if (slots.length !== length) state.fail("slots", `are ${slots.length}, not ${length}`);
  slots.forEach((saved, index) => {
    restore(index, saved);
  });
}
