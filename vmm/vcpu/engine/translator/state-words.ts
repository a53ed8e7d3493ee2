// Words of the guest's state in a region's code: 64-bit words of the hart's state block, by address.
//
// They are written to memory at once, and held in locals within a block: what lives long in many places is what the compiler
// behind takes its time for (two thirds of it to allocate registers). In a region of few blocks, a loop, they are locals from entry to exit.
import type { Code } from "./wasm-code.ts";

/** Words are held in so many locals within a block, where none is a local from entry to exit. */
const SHORT_LIVED = 12;

/** A word in a local within a block: valid while the code is in the construct in which it was put there, or in one within that. */
interface Held {
  local: number;
  depth: number;
  construct: number;
}

/** Not state: made and dropped while a region is translated. */
export class StateWords {
  readonly #code: Code;
  /** Locals (i64) from here on: a front end's, the short-lived ones, the long-lived ones. */
  readonly #first: number;
  #scratch = 0;
  #longLived = 0;
  /** Locals of the words that have one from entry to exit, by address; null: none has. */
  readonly #locals: Map<number, number> | null;
  readonly #written = new Set<number>();
  /** Those that are in a local here, the latest used last. */
  readonly #held = new Map<number, Held>();

  /** `throughout`: words are locals from entry to exit. */
  constructor(code: Code, first: number, throughout: boolean) {
    this.#code = code;
    this.#first = first;
    this.#locals = throughout ? new Map() : null;
  }

  /** First of `count` locals of the front end's own. Once, before any code. */
  scratch(count: number): number {
    this.#scratch = count;
    return this.#first;
  }

  /** One that stays whoever asked for it. */
  newLocal(): number {
    return this.#first + this.#scratch + SHORT_LIVED + this.#longLived++;
  }

  /** How many there are. */
  get locals(): number {
    return this.#scratch + SHORT_LIVED + this.#longLived;
  }

  /** Nothing is known at a block's beginning. */
  startBlock(): void {
    this.#held.clear();
  }

  /** What a region begins with. */
  load(code: Code): void {
    for (const [address, local] of this.#locals ?? []) {
      code.i32(0);
      code.memory("i64.load", address);
      code.set(local);
    }
  }

  /** What it ends with. */
  store(code: Code): void {
    for (const [address, local] of this.#locals ?? []) {
      if (!this.#written.has(address)) continue;
      code.i32(0);
      code.get(local);
      code.memory("i64.store", address);
    }
  }

  /** Pushes a word. */
  get(address: number): void {
    const code = this.#code;
    const local = this.#localOf(address);
    if (local !== null) {
      code.get(local);
      return;
    }
    const held = this.#hold(address);
    if (held.known) code.get(held.local);
    else {
      code.i32(0);
      code.memory("i64.load", address);
      code.tee(held.local);
    }
  }

  /** Pops into a word. */
  set(address: number): void {
    const code = this.#code;
    const local = this.#localOf(address);
    if (local !== null) {
      code.set(local);
      this.#written.add(address);
      return;
    }
    const held = this.#hold(address);
    code.set(held.local);
    code.i32(0);
    code.get(held.local);
    code.memory("i64.store", address);
  }

  /** Writes a word to memory now: before a call of a function that reads it there. */
  spill(address: number): void {
    const code = this.#code;
    const local = this.#localOf(address);
    if (local === null) return;
    code.i32(0);
    code.get(local);
    code.memory("i64.store", address);
  }

  /** Reads a word that a function has written in memory. */
  reload(address: number): void {
    const code = this.#code;
    const local = this.#localOf(address);
    this.#held.delete(address);
    if (local === null) return;
    code.i32(0);
    code.memory("i64.load", address);
    code.set(local);
    this.#written.add(address);
  }

  /** A word's local from entry to exit. It has one wherever the code that asks is: what comes later may jump back before that. */
  #localOf(address: number): number | null {
    if (this.#locals === null) return null;
    let local = this.#locals.get(address);
    if (local === undefined) {
      local = this.newLocal();
      this.#locals.set(address, local);
    }
    return local;
  }

  /** The local that holds a word from here on, and whether it does already. */
  #hold(address: number): { readonly local: number; readonly known: boolean } {
    const code = this.#code;
    const held = this.#held.get(address);
    if (held !== undefined && code.isOpen(held.depth, held.construct)) {
      // the latest used last
      this.#held.delete(address);
      this.#held.set(address, held);
      return { local: held.local, known: true };
    }
    let local = held?.local;
    this.#held.delete(address);
    if (local === undefined && this.#held.size < SHORT_LIVED) {
      const taken = new Set([...this.#held.values()].map((it) => it.local));
      local = this.#first + this.#scratch;
      while (taken.has(local)) local++;
    }
    if (local === undefined) {
      const [oldest, { local: its }] = this.#held.entries().next().value!;
      this.#held.delete(oldest);
      local = its;
    }
    this.#held.set(address, { local, depth: code.depth, construct: code.construct });
    return { local, known: false };
  }
}
