// What the driver puts into PASID table entries (VT-d §9.6) and legacy context entries (§9.3), as Linux's does (pasid.c, pasid_pte_config_*). FPD stays
// clear: faults are wanted.

import {
  PASID_ENTRY,
  PGTT_FIRST,
  PGTT_NESTED,
  PGTT_PASS_THROUGH,
  PGTT_SECOND,
} from "../../../arch/vtd/pasid-entries.ts";
import { CONTEXT, TT_ALL, TT_PASS_THROUGH, TT_UNTRANSLATED } from "../../../arch/vtd/root-and-context.ts";
import type { HpaPfn } from "../../../base/address.ts";
import type { PasidEntry } from "./pasid-table.ts";

/** AW of tables with so many levels: 39, 48 and 57 bits. */
export function widthCode(levels: number): number {
  return levels - 2;
}

/** What all entries of a unit have. */
export interface UnitTraits {
  /** Walks are snooped (ECAP.SMPWCS). */
  readonly walksSnoop: boolean;
  /** AW of the unit: where an entry has no table of its own to tell. 0: there is no second stage, so that AW is reserved. */
  readonly width: number;
  /** Linux: FLPT_DEFAULT_DID, of what needs no id of its own. */
  readonly passThroughId: number;
}

export interface FirstStage {
  readonly root: HpaPfn;
  readonly levels: number;
  readonly snoops: boolean;
}

export interface SecondStage {
  readonly root: HpaPfn;
  readonly levels: number;
  readonly marks: boolean;
}

/** A guest's first stage: what HWPT_ALLOC was given. */
export interface GuestStage {
  readonly table: bigint;
  readonly fiveLevels: boolean;
  readonly supervisor: boolean;
  readonly writeProtect: boolean;
  readonly extendedAccess: boolean;
  readonly snoops: boolean;
}

type Fields = Partial<Record<keyof typeof PASID_ENTRY.fields, bigint | number | boolean>>;

function entry(fields: Fields): PasidEntry {
  const words = new Array<bigint>(8).fill(0n);
  for (const [field, value] of Object.entries(fields)) {
    PASID_ENTRY.set(words, field as keyof typeof PASID_ENTRY.fields, BigInt(value));
  }
  return words;
}

export function firstStageEntry(unit: UnitTraits, id: number, { root, levels, snoops }: FirstStage): PasidEntry {
  return entry({
    P: 1,
    PGTT: PGTT_FIRST,
    DID: id,
    AW: unit.width,
    PWSNP: unit.walksSnoop,
    PGSNP: snoops,
    FSPM: levels - 4,
    FSPTPTR: root,
  });
}

function secondStageFields(unit: UnitTraits, id: number, { root, levels, marks }: SecondStage): Fields {
  return { DID: id, AW: widthCode(levels), PWSNP: unit.walksSnoop, SSADE: marks, SSPTPTR: root };
}

export function secondStageEntry(unit: UnitTraits, id: number, stage: SecondStage): PasidEntry {
  return entry({ P: 1, PGTT: PGTT_SECOND, ...secondStageFields(unit, id, stage) });
}

export function passThroughEntry(unit: UnitTraits): PasidEntry {
  return entry({ P: 1, PGTT: PGTT_PASS_THROUGH, DID: unit.passThroughId, AW: unit.width, PWSNP: unit.walksSnoop });
}

/** WPE says something of supervisor accesses only: without SRE it is left out. */
export function nestedEntry(unit: UnitTraits, id: number, guest: GuestStage, parent: SecondStage): PasidEntry {
  return entry({
    P: 1,
    PGTT: PGTT_NESTED,
    ...secondStageFields(unit, id, parent),
    PGSNP: guest.snoops,
    SRE: guest.supervisor,
    WPE: guest.supervisor && guest.writeProtect,
    EAFE: guest.extendedAccess,
    FSPM: guest.fiveLevels ? 1 : 0,
    FSPTPTR: guest.table >> 12n,
  });
}

/** Legacy mode: two quadwords. */
export function contextEntry(id: number, { root, levels }: SecondStage, ats: boolean): readonly bigint[] {
  return context({ TT: ats ? TT_ALL : TT_UNTRANSLATED, SSPTPTR: root, AW: widthCode(levels), DID: id });
}

export function passThroughContext(unit: UnitTraits): readonly bigint[] {
  return context({ TT: TT_PASS_THROUGH, AW: unit.width, DID: unit.passThroughId });
}

function context(fields: Partial<Record<keyof typeof CONTEXT.fields, number>>): readonly bigint[] {
  const words = [0n, 0n];
  for (const [field, value] of Object.entries({ P: 1, ...fields })) {
    CONTEXT.set(words, field as keyof typeof CONTEXT.fields, BigInt(value));
  }
  return words;
}
