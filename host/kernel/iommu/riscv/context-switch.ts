// The order in which a live device context is rewritten, so that the hardware only ever sees the old or the new one (the idea of
// Linux's arm_smmu_write_entry, for RISC-V device contexts, §3.1.3).
//
// Each context makes the hardware look at some bits and not at others: with V = 0 only V, with the first stage Bare not PSCID, and
// so on. First everything the old context does not look at is brought to its new value; if the rest then differs in one doubleword
// only, that store is the switch, and what the new context does not look at is tidied up last. Between these phases the cached
// context is invalidated, because the hardware may read the doublewords of one context at different times. Where two or more used
// doublewords differ no order of stores will do: then the directory's leaf table is replaced as a whole (one pointer store), and
// with a one-level directory the context is made invalid in between.

import { TC_PDTV, TC_V } from "../../../arch/riscv/device-context.ts";

/** tc, iohgatp, ta, fsc as doublewords; the MSI words of the extended format are always 0 here. */
export type Context = readonly [tc: bigint, iohgatp: bigint, ta: bigint, fsc: bigint];

export const INVALID_CONTEXT: Context = [0n, 0n, 0n, 0n];

const MODE = 0xfn << 60n;
const ALL = (1n << 64n) - 1n;
const PSCID = 0xfffff000n;

/** Bits of each doubleword that the hardware looks at. */
export function usedBits(context: Context): Context {
  const tc = Number(context[0] & 0xffffffffn);
  if ((tc & TC_V) === 0) return [1n, 0n, 0n, 0n];
  const firstStage = (context[3] & MODE) !== 0n;
  return [
    ALL,
    (context[1] & MODE) === 0n ? MODE : ALL,
    // RCID and MCID are never set here; PSCID counts for a first stage without process directory.
    firstStage && (tc & TC_PDTV) === 0 ? PSCID : 0n,
    firstStage ? ALL : MODE,
  ];
}

/** Stores of one phase, in order: (doubleword, value). After each phase the device's context is invalidated. */
export type Phase = readonly { readonly word: number; readonly value: bigint }[];

export type SwitchPlan =
  /** Stores in phases; after every store the hardware sees the old or the new context. */
  | { readonly kind: "stores"; readonly phases: readonly Phase[] }
  /** No order of stores does it. */
  | { readonly kind: "replace" };

export function planSwitch(from: Context, to: Context): SwitchPlan {
  const used = usedBits(from);
  const prepared = from.map((word, i) => (word & used[i]!) | (to[i]! & ~used[i]! & ALL));
  const needed = usedBits(to);
  const critical = [0, 1, 2, 3].filter((i) => ((prepared[i]! ^ to[i]!) & needed[i]!) !== 0n);
  if (critical.length > 1) return { kind: "replace" };
  const switching = critical[0] ?? -1;
  const phases: Phase[] = [
    [0, 1, 2, 3]
      .filter((i) => i !== switching && prepared[i] !== from[i])
      .map((word) => ({ word, value: prepared[word]! })),
    switching < 0 ? [] : [{ word: switching, value: to[switching]! }],
    [0, 1, 2, 3].filter((i) => i !== switching && to[i] !== prepared[i]).map((word) => ({ word, value: to[word]! })),
  ];
  return { kind: "stores", phases: phases.filter((phase) => phase.length > 0) };
}
