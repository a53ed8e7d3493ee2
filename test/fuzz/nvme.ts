// `nestbox fuzz nvme`: hostile guests on the NVMe controller, one a seed.

import type { Fuzzer } from "../../vmm/cli/fuzzer.ts";
import { hostileRun } from "../host/devices/nvme/hostile-guest.ts";

export const fuzzer: Fuzzer = {
  about: "hostile guests on the NVMe controller: a reset always helps",
  round: (seed) => {
    const problem = hostileRun(seed);
    return problem === null ? null : { problem };
  },
};
