// Processes of a kernel and the files they opened, by the names under which a state document refers to them: a process by its name, a file by
// its process and descriptor. Files whose descriptor was closed while the kernel goes on using them (an eventfd of a vector, an iommufd of
// a bound device, a memfd behind a mapping) are numbered in the order of closing.

import type { Stateful } from "../base/state.ts";
import type { CallContext, OpenFile } from "./file.ts";
import type { Process } from "./process.ts";

// Not state: processes and files are the kernel's parts, by these names.
export class ObjectNames {
  readonly processes = new Set<Process>();
  readonly #closed = new Set<OpenFile>();

  /** A descriptor was closed, and its file is still in use. */
  closedInUse(file: OpenFile): void {
    this.#sweep();
    this.#closed.add(file);
  }

  #sweep(): void {
    for (const file of this.#closed) if (file.references === 0) this.#closed.delete(file);
  }

  /** Processes of the same name are told apart by their order. */
  *#named(): Generator<readonly [string, Process]> {
    const seen = new Map<string, number>();
    for (const process of this.processes) {
      const count = (seen.get(process.name) ?? 0) + 1;
      seen.set(process.name, count);
      yield [count === 1 ? process.name : `${process.name} ${count}`, process];
    }
  }

  *#closedFiles(): Generator<readonly [string, OpenFile]> {
    this.#sweep();
    let number = 0;
    for (const file of this.#closed) yield [`closed file ${number++} (${file.path})`, file];
  }

  *#files(): Generator<readonly [string, OpenFile]> {
    for (const [name, process] of this.#named()) {
      for (const [fd, file] of process.files()) yield [`process ${name} fd ${fd}`, file];
    }
    yield* this.#closedFiles();
  }

  /** null: it has ended, or is none of this kernel's. */
  nameOfProcess(call: CallContext): string | null {
    for (const [name, process] of this.#named()) if (process === call) return name;
    return null;
  }

  processNamed(wanted: string): CallContext | null {
    for (const [name, process] of this.#named()) if (name === wanted) return process;
    return null;
  }

  nameOfFile(file: OpenFile): string | null {
    for (const [name, known] of this.#files()) if (known === file) return name;
    return null;
  }

  fileNamed(wanted: string): OpenFile | null {
    for (const [name, file] of this.#files()) if (name === wanted) return file;
    return null;
  }

  *stateParts(): Generator<readonly [string, Stateful]> {
    for (const [name, process] of this.#named()) yield [`process ${name}`, process];
    yield* this.#closedFiles();
  }
}
