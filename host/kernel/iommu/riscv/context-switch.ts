// The order in which a live device context is rewritten, so that every request meets the old context or the new one (the idea of
// Linux's arm_smmu_write_entry, for RISC-V device contexts, §3.1.3).
//
// The hardware reads a context in pieces and at any time, so between two stores it may act on a mixture of both contexts. A mixture does
// no harm if each kind of request - with a process_id or without, translated, ATS, a page request - is treated in it as under the old
// context or as under the new one. `planStores` looks for the shortest way from one context to the other through such mixtures, in
// phases: what is stored within a phase may be seen in any order, and between phases the device's cached context is invalidated.
//
//     bypass with a Bare process directory → plain first stage
//         tc.PDTV off, PSCID      requests without process_id still pass the second stage alone, those with one are refused already
//         fsc                     the switch
//
// Translations are cached under (GSCID, PSCID), so a mixture of one context's tables with the other one's tag would leave the wrong
// translations under a tag that others may share. Where tables and tag both change, the device goes through a private tag meanwhile,
// which is flushed afterwards (`throughPrivateTag`).
//
// In every way only the device's own entry changes, and only its own context is invalidated. What is left has no such way: tables of
// another kind altogether pass through a context that is not valid, as every switch does in Linux's RISC-V driver. But a device that
// enters or leaves a process directory of the host's goes on with DMA at its requester id, which means the same before and after: for it
// alone the directory's leaf table is exchanged (`keepsRequester`), and that takes an invalidation of the whole directory.

import type { StructureRules } from "../../../arch/riscv/capabilities.ts";
import {
  deviceContextMisconfiguration,
  halvesOf,
  TC_DPE,
  TC_DTF,
  TC_EN_ATS,
  TC_EN_PRI,
  TC_GADE,
  TC_PDTV,
  TC_PRPR,
  TC_SADE,
  TC_SBE,
  TC_SXL,
  TC_T2GPA,
  TC_V,
} from "../../../arch/riscv/device-context.ts";
import type { StateReader } from "../../../base/state.ts";
import { bigintsOf } from "../../same-objects.ts";

/** tc, iohgatp, ta, fsc as doublewords; the MSI words of the extended format are always 0 here. */
export type Context = readonly [tc: bigint, iohgatp: bigint, ta: bigint, fsc: bigint];

export const INVALID_CONTEXT: Context = [0n, 0n, 0n, 0n];

const MODE = 0xfn << 60n;
const GSCID = 0xffffn << 44n;
const PSCID = 0xfffff000n;

/** Stores of one phase: (doubleword, value). After each phase the device's context is invalidated. */
export type Phase = readonly { readonly word: number; readonly value: bigint }[];

/**
 * The stores that take a device from one context to another with the old or the new one in force for every request at any time, in as few
 * phases as possible; null if there is no such order. Without `tagsMatter` tables may meet the other context's PSCID: for private tags.
 */
export function planStores(from: Context, to: Context, rules: StructureRules, tagsMatter = true): Phase[] | null {
  const words = [0, 1, 2, 3].filter((word) => from[word] !== to[word]);
  const all = (1 << words.length) - 1;
  const before = treatment(from, rules, tagsMatter);
  const after = treatment(to, rules, tagsMatter);
  /** Per set of words stored (bit n: words[n]): whether that mixture does no harm; filled as it is asked for. */
  const harmless: (boolean | undefined)[] = [];
  harmless[0] = true;
  harmless[all] = true;
  const isHarmless = (stored: number): boolean => {
    let answer = harmless[stored];
    if (answer === undefined) {
      const mixture = [...from] as [bigint, bigint, bigint, bigint];
      for (const [bit, word] of words.entries()) if ((stored & (1 << bit)) !== 0) mixture[word] = to[word]!;
      const seen = treatment(mixture, rules, tagsMatter);
      answer = seen.every((one, kind) => one === before[kind] || one === after[kind]);
      harmless[stored] = answer;
    }
    return answer;
  };
  // Breadth first over sets of words stored; large phases first, so that what does not count yet goes early.
  const cameFrom = new Map<number, number>([[0, -1]]);
  for (const stored of cameFrom.keys()) {
    if (stored === all) break;
    const left = all & ~stored;
    for (let phase = left; phase !== 0; phase = (phase - 1) & left) {
      if (!cameFrom.has(stored | phase) && everySubset(phase, (part) => isHarmless(stored | part))) {
        cameFrom.set(stored | phase, stored);
      }
    }
  }
  if (!cameFrom.has(all)) return null;
  const phases: Phase[] = [];
  for (let at = all; at !== 0; at = cameFrom.get(at)!) {
    const stored = at & ~cameFrom.get(at)!;
    phases.unshift(words.filter((_, bit) => (stored & (1 << bit)) !== 0).map((word) => ({ word, value: to[word]! })));
  }
  return phases;
}

/**
 * The same where tables and tag both change: through a tag that nobody else has, a GSCID with a second stage and a PSCID without. The
 * caller flushes it after the stores. Null if that does not help either.
 */
export function throughPrivateTag(from: Context, to: Context, rules: StructureRules, tag: number): Phase[] | null {
  if (hasSecondStage(from) !== hasSecondStage(to)) return null;
  const [one, other] = [underTag(from, tag), underTag(to, tag)];
  const enter = planStores(from, one, rules);
  const change = planStores(one, other, rules, false);
  const leave = planStores(other, to, rules);
  return enter === null || change === null || leave === null ? null : [...enter, ...change, ...leave];
}

/**
 * True for a device of the host's that enters or leaves a process directory, in which process id 0 stands for what it had without: iosatp and
 * pdtp are one field, told apart by another doubleword, so no order of stores leads from one to the other.
 */
export function keepsRequester(from: Context, to: Context): boolean {
  const directories = [from, to].filter(([tc]) => (Number(tc & 0xfffn) & TC_PDTV) !== 0).length;
  const valid = (from[0] & to[0] & BigInt(TC_V)) !== 0n;
  return valid && directories === 1 && !hasSecondStage(from) && !hasSecondStage(to);
}

/** True if the private tag of `throughPrivateTag` is a GSCID. */
export function hasSecondStage(context: Context): boolean {
  return (context[1] & MODE) !== 0n;
}

function underTag([tc, iohgatp, ta, fsc]: Context, tag: number): Context {
  if ((iohgatp & MODE) !== 0n) return [tc, (iohgatp & ~GSCID) | (BigInt(tag) << 44n), ta, fsc];
  return [tc, iohgatp, (ta & ~PSCID) | (BigInt(tag) << 12n), fsc];
}

function everySubset(set: number, holds: (subset: number) => boolean): boolean {
  for (let subset = set; ; subset = (subset - 1) & set) {
    if (!holds(subset)) return false;
    if (subset === 0) return true;
  }
}

const NOT_VALID = Array<string>(7).fill("not valid");
const MISCONFIGURED = Array<string>(7).fill("misconfigured");

/**
 * How each kind of request is treated under a context: without process_id, with one, translated, ATS requests without and with process_id,
 * page requests, and whether faults are reported. Equal strings are equal treatment.
 */
function treatment(context: Context, rules: StructureRules, tagsMatter: boolean): readonly string[] {
  const [tcWord, iohgatp, ta, fsc] = context;
  const tc = Number(tcWord & 0xffffffffn);
  if ((tc & TC_V) === 0) return NOT_VALID;
  const words = rules.MSI_FLAT ? [...context, 0n, 0n, 0n, 0n] : context;
  if (deviceContextMisconfiguration(halvesOf(words), rules) !== null) return MISCONFIGURED;
  const on = (bits: number): number => tc & bits;
  // What the second stage does by itself; its GSCID is a tag.
  const second = (iohgatp & MODE) === 0n ? "" : `${iohgatp & ~GSCID} ${on(TC_GADE | TC_SXL)}`;
  const gscid = second !== "" && tagsMatter ? iohgatp & GSCID : 0n;
  const bare = (fsc & MODE) === 0n;
  const walked = `${fsc} ${on(TC_SADE | TC_SBE | TC_SXL)} ${second} ${gscid}`;
  const directory = on(TC_PDTV) === 0 || bare ? second : `directory ${walked}`;
  const plain = bare ? second : `table ${walked} ${tagsMatter ? ta & PSCID : ""}`;
  const untagged = on(TC_PDTV) === 0 ? plain : on(TC_DPE) === 0 ? second : directory;
  const tagged = on(TC_PDTV) === 0 ? "refused" : directory;
  const ats = on(TC_EN_ATS) !== 0;
  return [
    untagged,
    tagged,
    !ats ? "refused" : on(TC_T2GPA) === 0 ? "as it is" : second,
    !ats ? "refused" : `${on(TC_T2GPA)} ${untagged}`,
    !ats ? "refused" : `${on(TC_T2GPA)} ${tagged}`,
    on(TC_EN_PRI) === 0 ? "refused" : `${on(TC_PRPR)}`,
    `${on(TC_DTF)}`,
  ];
}

/** A context of a state document. Throws StateError. */
export function restoredContext(state: StateReader, name: string): Context {
  const [tc, iohgatp, ta, fsc, ...more] = bigintsOf(state, name);
  if (fsc === undefined || more.length > 0) state.fail(name, "is not four doublewords");
  return [tc!, iohgatp!, ta!, fsc];
}
