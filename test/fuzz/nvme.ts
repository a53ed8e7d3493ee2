// `npm run fuzz -- nvme`: hostile guests on the NVMe controller, one a seed, until the time is up.

import { hostileRun } from "../host/devices/nvme/hostile-guest.ts";

export async function fuzz(options: { seed: number; seconds: number; log: (line: string) => void }): Promise<boolean> {
  const end = performance.now() + options.seconds * 1000;
  let seed = options.seed;
  for (; performance.now() < end; seed++) {
    const problem = hostileRun(seed);
    if (problem === null) continue;
    options.log(`seed ${seed}: ${problem}`);
    return false;
  }
  options.log(`${seed - options.seed} guests from seed ${options.seed}`);
  return true;
}
