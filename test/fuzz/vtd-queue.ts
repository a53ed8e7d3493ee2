/**
 * `nestbox fuzz vtd-queue`: random invalidation queues, of sizes, widths and tails of every kind, valid descriptors and spoiled ones, on the VT-d hardware model and by
 * the oracle of `test/oracle/vtd/invalidation-queue.ts`: where it stops and by which code, what waits wrote, and that it goes on once the error is cleared.
 */
import type { Fuzzer } from "../../vmm/cli/fuzzer.ts";
import { huntQueue } from "../oracle/vtd/harness/queue-hunt.ts";

export const fuzzer: Fuzzer = {
  about: "random invalidation queues: VT-d against an oracle",
  round: (seed, count) => {
    count("queues", 1);
    const problem = huntQueue(seed);
    return problem === null ? null : { problem };
  },
};
