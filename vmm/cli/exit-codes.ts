// Exit statuses of every command.

export const EXIT_PASS = 0;
/** The guest, or an expectation, failed. */
export const EXIT_FAILED = 1;
/** Usage or configuration. */
export const EXIT_USAGE = 2;
/** A guest-visible fault under --fail-on-fault. */
export const EXIT_FAULT = 3;
/** An invariant of nestbox itself is broken. */
export const EXIT_BUG = 4;
/** A time limit, virtual or wall. */
export const EXIT_TIME_LIMIT = 42;
/** Something that this machine lacks. */
export const EXIT_MISSING = 77;

/** A mistake of the user's: one line, exit status 2 unless told otherwise. */
export class UsageError extends Error {
  readonly exitCode: number;

  constructor(message: string, exitCode: number = EXIT_USAGE) {
    super(message);
    this.exitCode = exitCode;
  }
}
