// A reader that goes away (`nestbox … | head -1`, `| grep -m1 login`) ends the command, without a word, as any tool's. Node ignores
// SIGPIPE: it shows as EPIPE of a write, which streams report as an event and file descriptors as an error.

import { EXIT_PASS } from "./exit-codes.ts";

/** What a shell says of a program that SIGPIPE ended. */
const EXIT_SIGPIPE = 128 + 13;

let status = EXIT_PASS;
let isEnding = false;

/** A run that is cut short has not passed: from now on, until its verdict is known, that is what the status says. */
export function verdictPending(): void {
  status = EXIT_SIGPIPE;
}

export function verdictKnown(verdict: number): void {
  status = verdict;
}

/** Ends the process; handlers of its end (locks, trace files) run. */
export function readerGone(): void {
  // They may print, too: nobody listens.
  if (isEnding) return;
  isEnding = true;
  process.exit(status);
}

export function endWithReader(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "EPIPE") readerGone();
      else throw error;
    });
  }
}
