import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

/** Bytes of live objects, after a collection. */
export function liveBytes(): number {
  setFlagsFromString("--expose-gc");
  (runInNewContext("gc") as () => void)();
  return process.memoryUsage().heapUsed;
}

/** Bytes that live objects grew by between operation 2,000 and 12,000 of `run`, which calls back after each. */
export function growth(run: (operations: number, pause: (operation: number) => void) => void): number {
  const live: number[] = [];
  run(12_000, (operation) => {
    if (operation === 2_000 || operation === 11_999) live.push(liveBytes());
  });
  return live[1]! - live[0]!;
}
