// A limit on wall time for code that cannot be asked to stop: an endless loop in a guest traps nowhere, so no flag of ours is ever
// looked at. The engine can end it: a script run by `vm` with a timeout is terminated, WebAssembly frames included. Costs about
// 0.1 ms a call. Termination runs no `finally` blocks: whatever `body` was doing is lost, so drop the machine after it.

import { runInThisContext } from "node:vm";

/** What `vm` takes, in milliseconds: 49 days. */
const LONGEST = 2 ** 32 - 1;
const SLOT = "__nestboxGuardedBody";

/** Runs `body`; undefined if it took longer than `limit` milliseconds and was terminated. */
export function runGuarded<T extends object>(body: () => T, limit: number): T | undefined {
  const global = globalThis as Record<string, unknown>;
  const outer = global[SLOT];
  global[SLOT] = body;
  try {
    return runInThisContext(`globalThis.${SLOT}()`, { timeout: Math.min(Math.max(1, Math.ceil(limit)), LONGEST) }) as T;
  } catch (error) {
    if (error instanceof Error && (error as NodeJS.ErrnoException).code === "ERR_SCRIPT_EXECUTION_TIMEOUT")
      return undefined;
    throw error;
  } finally {
    global[SLOT] = outer;
  }
}
