// Caches of device contexts and process contexts, decoded (§3.8).
//
// Process contexts hang on the device context under which they were loaded (host/base/caches/structure-cache.ts): IODIR.INVAL_DDT forgets both.

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
import { type AddressTags, NO_TAG, UNNUMBERED } from "../../../base/caches/address-tags.ts";
import type { StructureSlot, SubstructureSlot } from "../../../base/caches/structure-cache.ts";
import type { StateReader, StateRecord } from "../../../base/state.ts";

/** Machine of "no second stage": the host's own address spaces. The others are GSCIDs. */
export const HOST = -1;
/** "First stage Bare": second-stage translations of a guest-physical address. The other spaces are PSCIDs. */
export const SECOND_STAGE_ONLY = UNNUMBERED;

/** An address space with the tag its cached translations carry. */
export class CachedSpace extends AddressSpace {
  gscid = HOST;
  pscid = SECOND_STAGE_ONLY;
  variant = 0;
  /** Both stages Bare and no MSI recognition: addresses pass unchanged. */
  transparent = false;

  /** Settles tag and transparency once stages are set. */
  settle(tags: AddressTags, gscid: number, pscid: number, variant: number): void {
    this.gscid = this.secondLevels === 0 ? HOST : gscid;
    this.pscid = this.firstLevels === 0 ? SECOND_STAGE_ONLY : pscid;
    this.variant = variant;
    this.transparent = this.firstLevels === 0 && this.secondLevels === 0 && variant === 0;
    this.tag = tags.tagFor(this.gscid, this.pscid, variant);
    this.secondTag = tags.tagFor(this.gscid, SECOND_STAGE_ONLY, variant);
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
    const second = tags.find(this.gscid, SECOND_STAGE_ONLY, this.variant);
    this.tag = tag ?? NO_TAG;
    this.secondTag = second ?? NO_TAG;
    return tag !== null && second !== null;
  }
}

export class CachedDevice implements StructureSlot {
  /** The device_id. */
  id = -1;
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
  readonly #tags: AddressTags;

  constructor(tags: AddressTags) {
    this.#tags = tags;
  }

  /** Decodes a sound device context (halves). */
  load(dc: Uint32Array, rules: StructureRules): void {
    const tags = this.#tags;
    const tc = dc[0]!;
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
      id: this.id,
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
    this.id = state.number("id");
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
    const tagged = this.space.findTag(this.#tags) && this.secondStageOnly.findTag(this.#tags);
    if (!tagged) state.fail("space", "has no tag");
  }
}

export class CachedProcess implements SubstructureSlot {
  /** The process_id. */
  id = -1;
  ownerStamp = 0;
  ens = false;
  readonly space = new CachedSpace();
  readonly #tags: AddressTags;

  constructor(tags: AddressTags) {
    this.#tags = tags;
  }

  /** Decodes a sound process context (halves) of `device`. */
  load(device: CachedDevice, pc: Uint32Array): void {
    const ta = pc[0]!;
    this.ens = (ta & PC_ENS) !== 0;
    this.space.copySecondStage(device.secondStageOnly);
    this.space.setFirstStage(pc[2]!, pc[3]!, device.sxl, (ta & PC_SUM) !== 0);
    this.space.settle(this.#tags, device.gscid, ta >>> 12, device.secondStageOnly.variant);
  }

  saveState(): StateRecord {
    return {
      ownerStamp: this.ownerStamp,
      id: this.id,
      ens: this.ens,
      space: this.space.saveState(),
    };
  }

  restoreState(state: StateReader): void {
    this.ownerStamp = state.number("ownerStamp");
    this.id = state.number("id");
    this.ens = state.boolean("ens");
    this.space.restoreState(state.record("space"));
    if (!this.space.findTag(this.#tags)) state.fail("space", "has no tag");
  }
}
