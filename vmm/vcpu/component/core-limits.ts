// What a guest's core modules may claim of the host's memory: RAM is the machine's, and beside it only what is bounded from the start.
// Reads a core module's binary (WebAssembly core specification §5.5: type, table, memory and code sections); the engine has validated
// it already.
//
//   memory   imported; a module that defines one may have no code (wit-component makes such a module to hand memory on)
//   tables   at most 2^20 elements together, growth included, so each needs a maximum
//   types    functions only: garbage-collected objects would fill the engine's heap, not RAM

const MOST_ELEMENTS = 2 ** 20;

/** One line that says what is too much, or null. */
export function excessOfCore(bytes: Uint8Array): string | null {
  const reader = new CoreReader(bytes);
  let definesMemory = false;
  let hasCode = false;
  let elements = 0;
  while (!reader.done) {
    const id = reader.byte();
    const size = reader.u32();
    const end = reader.at + size;
    if (id === 1) {
      if (!reader.onlyFunctionTypes()) return "uses garbage-collected types, which live outside RAM";
    } else if (id === 4) {
      elements += reader.tableElements();
      if (elements > MOST_ELEMENTS) return `has tables without a maximum, or of more than ${MOST_ELEMENTS} elements`;
    } else if (id === 5) {
      definesMemory = reader.u32() > 0;
    } else if (id === 10) {
      hasCode = reader.u32() > 0;
    }
    reader.at = end;
  }
  if (definesMemory && hasCode) {
    return "keeps its memory to itself; build it with an imported memory (asc --importMemory, wasm-ld --import-memory)";
  }
  return null;
}

/** Not state: made and dropped while an image is read. */
class CoreReader {
  at = 8;
  readonly #bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  get done(): boolean {
    return this.at >= this.#bytes.length;
  }

  /** Past the end everything is 0: a damaged module ends the loops, the engine names the damage. */
  byte(): number {
    return this.#bytes[this.at++] ?? 0;
  }

  /** LEB128; 64-bit limits become large doubles. */
  u32(): number {
    let value = 0;
    for (let shift = 0; shift < 70; shift += 7) {
      const byte = this.byte();
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) break;
    }
    return value;
  }

  onlyFunctionTypes(): boolean {
    for (let left = this.u32(); left > 0 && !this.done; left--) {
      if (this.byte() !== 0x60) return false;
      for (let list = 0; list < 2; list++) {
        for (let types = this.u32(); types > 0 && !this.done; types--) this.#skipValueType();
      }
    }
    return true;
  }

  /** Value types are one byte, but for typed references: 0x63 or 0x64 and a heap type. */
  #skipValueType(): void {
    const type = this.byte();
    if (type === 0x63 || type === 0x64) this.u32();
  }

  /** The most elements that the tables of this section can ever have; Infinity if one has no maximum. */
  tableElements(): number {
    let sum = 0;
    for (let left = this.u32(); left > 0 && !this.done; left--) {
      // A table with an initialiser expression (0x40 0x00) is for non-nullable references; compilers make none.
      if (this.#bytes[this.at] === 0x40) return Number.POSITIVE_INFINITY;
      this.#skipValueType();
      const bounded = (this.byte() & 1) !== 0;
      this.u32();
      sum += bounded ? this.u32() : Number.POSITIVE_INFINITY;
    }
    return sum;
  }
}
