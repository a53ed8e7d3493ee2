// `nestbox fuzz attachments`: whatever moves an attachment - attach, replace and detach with PASIDs and groups, nested domains, unmaps,
// hot-plug, resets, page requests, allocations that fail - with ATS on, against a model of who is attached to what (attachments/).

import type { Fuzzer } from "../../vmm/cli/fuzzer.ts";
import { Round } from "./attachments/round.ts";

const STEPS = 400;

/** One round: null, or what is wrong with it. */
export function attachmentsRound(seed: number, count: (what: string, by: number) => void = () => {}): string | null {
  let round: Round | null = null;
  try {
    round = new Round(seed);
    const problem = round.run(STEPS);
    count("steps", STEPS);
    for (const [what, times] of Object.entries({ ...round.judge.did, ...round.did })) count(what, times);
    return problem;
  } catch (error) {
    return `${round?.last ?? "setting up"} threw ${error instanceof Error ? error.stack : String(error)}`;
  }
}

export const fuzzer: Fuzzer = {
  about: "PASIDs, groups, hot-plug, replace, with ATS: DMA lands where a model says",
  round: (seed, count) => {
    const problem = attachmentsRound(seed, count);
    return problem === null ? null : { problem };
  },
};
