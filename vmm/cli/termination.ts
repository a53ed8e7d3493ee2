// Signals that ask the process to end: a run notices them between slices and ends as it would otherwise, with its summary and the
// terminal as it was. A second signal ends the process at once.

const SIGNALS: readonly NodeJS.Signals[] = ["SIGINT", "SIGTERM", "SIGHUP"];

export class Termination {
  /** What arrived, null so far. */
  signal: NodeJS.Signals | null = null;
  /** Called when it arrives. */
  onSignal: () => void = () => {};
  readonly #listener = (signal: NodeJS.Signals): void => {
    this.signal = signal;
    this.close();
    this.onSignal();
  };

  constructor() {
    for (const signal of SIGNALS) process.on(signal, this.#listener);
  }

  close(): void {
    for (const signal of SIGNALS) process.off(signal, this.#listener);
  }
}
