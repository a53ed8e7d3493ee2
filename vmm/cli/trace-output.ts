// A file that a trace is written into while something runs.

import { closeSync, mkdirSync, openSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { writeAll } from "./console.ts";
import { UsageError } from "./exit-codes.ts";
import { fileProblem } from "./input-file.ts";

export class TraceFile {
  readonly #file: string;
  readonly #fd: number;
  #problem: string | null = null;

  /** Makes the folder, too. Throws UsageError. */
  constructor(file: string) {
    this.#file = file;
    try {
      mkdirSync(dirname(file), { recursive: true });
      this.#fd = openSync(file, "w");
    } catch (error) {
      throw new UsageError(`trace ${file}: ${fileProblem(error)}`);
    }
  }

  /** A full disk is not the fault of what is traced: it runs on, and `close` says so. */
  write(text: string): void {
    if (this.#problem !== null) return;
    try {
      writeAll(this.#fd, Buffer.from(text));
    } catch (error) {
      this.#problem = fileProblem(error);
    }
  }

  /** Throws UsageError if something is missing in the file. */
  close(): void {
    closeSync(this.#fd);
    if (this.#problem !== null) throw new UsageError(`trace ${this.#file}: ${this.#problem}`);
  }
}

/** Makes a folder for traces that version control leaves out, as build tools do with theirs. Throws UsageError. */
export function makeTraceFolder(folder: string): void {
  try {
    if (mkdirSync(folder, { recursive: true }) === undefined) return;
    writeFileSync(join(folder, ".gitignore"), "*\n");
  } catch (error) {
    throw new UsageError(`--trace-dir ${folder}: ${fileProblem(error)}`);
  }
}
