// Log pages (NVMe 1.4 §5.14.1): errors, health, firmware slots. The error log keeps the last completions with an error; the
// health log counts what the host read and wrote.

import { bytesOf, type Stateful, type StateReader, type StateRecord } from "../../base/state.ts";
import { ERROR_LOG_ENTRIES, FIRMWARE, putNumber, putText, TEMPERATURE } from "./identify.ts";
import type { Command } from "./queue.ts";

export const HEALTH_LOG_BYTES = 512;
export const FIRMWARE_LOG_BYTES = 512;
export const ERROR_ENTRY_BYTES = 64;
export const ERROR_LOG_BYTES = ERROR_LOG_ENTRIES * ERROR_ENTRY_BYTES;

/** Critical warning: reliability is degraded by media errors. */
export const WARNING_RELIABILITY = 1 << 2;

/** Data units of the health log: thousands of 512 bytes. */
const DATA_UNIT_BYTES = 512_000;

export class LogPages implements Stateful {
  criticalWarning = 0;
  readonly #errors = new Uint8Array(ERROR_LOG_BYTES);
  #errorCount = 0;
  #bytesRead = 0;
  #bytesWritten = 0;
  #reads = 0;
  #writes = 0;
  #mediaErrors = 0;

  recordRead(bytes: number): void {
    this.#reads++;
    this.#bytesRead += bytes;
  }

  recordWrite(bytes: number): void {
    this.#writes++;
    this.#bytesWritten += bytes;
  }

  recordMediaError(): void {
    this.#mediaErrors++;
    this.criticalWarning |= WARNING_RELIABILITY;
  }

  /** An entry for a command that ended with `status`, newest first (§5.14.1.1). */
  recordError(queue: number, command: Command, status: number): void {
    const errors = this.#errors;
    errors.copyWithin(ERROR_ENTRY_BYTES, 0, ERROR_LOG_BYTES - ERROR_ENTRY_BYTES);
    errors.fill(0, 0, ERROR_ENTRY_BYTES);
    putNumber(errors, 0, 8, ++this.#errorCount);
    putNumber(errors, 8, 2, queue);
    putNumber(errors, 10, 2, command.id);
    putNumber(errors, 12, 2, (status << 1) & 0xffff);
    // Parameter error location: not said.
    putNumber(errors, 14, 2, 0xffff);
    if (queue !== 0) {
      putNumber(errors, 16, 4, command.words[10]!);
      putNumber(errors, 20, 4, command.words[11]!);
    }
    putNumber(errors, 24, 4, command.namespace);
  }

  errorLog(into: Uint8Array): void {
    into.set(this.#errors);
  }

  /** SMART / Health Information (§5.14.1.2). `nowNs`: virtual time. */
  healthLog(into: Uint8Array, nowNs: number): void {
    into.fill(0, 0, HEALTH_LOG_BYTES);
    into[0] = this.criticalWarning;
    putNumber(into, 1, 2, TEMPERATURE);
    // Available spare and its threshold, per cent.
    into[3] = 100;
    into[4] = 10;
    putNumber(into, 32, 8, Math.ceil(this.#bytesRead / DATA_UNIT_BYTES));
    putNumber(into, 48, 8, Math.ceil(this.#bytesWritten / DATA_UNIT_BYTES));
    putNumber(into, 64, 8, this.#reads);
    putNumber(into, 80, 8, this.#writes);
    // Power cycles: this run is the first. No unsafe shutdowns (144).
    putNumber(into, 112, 8, 1);
    putNumber(into, 128, 8, Math.floor(nowNs / 3.6e12));
    putNumber(into, 160, 8, this.#mediaErrors);
    putNumber(into, 176, 8, this.#errorCount);
  }

  /** Firmware Slot Information (§5.14.1.3): slot 1 is active. */
  firmwareLog(into: Uint8Array): void {
    into.fill(0, 0, FIRMWARE_LOG_BYTES);
    into[0] = 1;
    putText(into, { at: 8, bytes: 8 }, FIRMWARE, 0x20);
  }

  saveState(): StateRecord {
    return {
      criticalWarning: this.criticalWarning,
      errors: bytesOf(this.#errors),
      errorCount: this.#errorCount,
      bytesRead: this.#bytesRead,
      bytesWritten: this.#bytesWritten,
      reads: this.#reads,
      writes: this.#writes,
      mediaErrors: this.#mediaErrors,
    };
  }

  restoreState(state: StateReader): void {
    this.criticalWarning = state.number("criticalWarning");
    state.memory("errors", this.#errors);
    this.#errorCount = state.number("errorCount");
    this.#bytesRead = state.number("bytesRead");
    this.#bytesWritten = state.number("bytesWritten");
    this.#reads = state.number("reads");
    this.#writes = state.number("writes");
    this.#mediaErrors = state.number("mediaErrors");
  }
}
