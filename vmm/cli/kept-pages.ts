// The bytes of large memories as a machine's checkpoints keep them: in units, of which those that did not change since the checkpoint before are
// shared with it, and those that are zero are not there.

import { KeptBytes } from "../../host/base/state.ts";

/** Bytes of a unit: comparing one is dear next to its call, and a guest that runs touches memory here and there. */
const UNIT = 16384;
const ZEROES = Buffer.alloc(UNIT);

/** null: zeroes. */
type Unit = Buffer | null;

export class KeptPages {
  /** Bytes of all units that were ever kept and are still somewhere; whoever drops checkpoints asks again with `measure`. */
  bytes = 0;
  /** What each memory was when it was last kept or put back, by its buffer and offset. */
  readonly #last = new WeakMap<ArrayBufferLike, Map<number, readonly Unit[]>>();

  /** The memory's bytes as they are. */
  keep(memory: Uint8Array): KeptUnits {
    const bytes = Buffer.from(memory.buffer, memory.byteOffset, memory.length);
    const before = this.#last.get(memory.buffer)?.get(memory.byteOffset) ?? [];
    const units: Unit[] = new Array(Math.ceil(bytes.length / UNIT));
    for (let n = 0; n < units.length; n++) {
      const at = n * UNIT;
      const end = Math.min(at + UNIT, bytes.length);
      const known = before[n];
      if (known !== undefined && isAt(bytes, at, end, known)) units[n] = known;
      else if (known !== null && isAt(bytes, at, end, null)) units[n] = null;
      else {
        units[n] = Buffer.from(bytes.subarray(at, end));
        this.bytes += end - at;
      }
    }
    return this.#remember(memory, new KeptUnits(this, units, bytes.length));
  }

  /** Puts units into a memory. */
  put(memory: Uint8Array, kept: KeptUnits): void {
    const bytes = Buffer.from(memory.buffer, memory.byteOffset, memory.length);
    kept.units.forEach((unit, n) => {
      const at = n * UNIT;
      // Zeroes are written where there are none: a page that was never touched takes no room.
      if (unit !== null) unit.copy(bytes, at);
      else if (!isAt(bytes, at, Math.min(at + UNIT, bytes.length), null)) bytes.fill(0, at, at + UNIT);
    });
    this.#remember(memory, kept);
  }

  /** Counts again what is kept, by these documents' bytes alone. */
  measure(all: Iterable<KeptUnits>): void {
    const units = new Set<Buffer>();
    for (const kept of all) for (const unit of kept.units) if (unit !== null) units.add(unit);
    this.bytes = 0;
    for (const unit of units) this.bytes += unit.length;
  }

  #remember(memory: Uint8Array, kept: KeptUnits): KeptUnits {
    const { buffer, byteOffset } = memory;
    let places = this.#last.get(buffer);
    if (places === undefined) {
      places = new Map();
      this.#last.set(buffer, places);
    }
    places.set(byteOffset, kept.units);
    return kept;
  }
}

export class KeptUnits extends KeptBytes {
  readonly units: readonly Unit[];
  readonly length: number;
  readonly #pages: KeptPages;

  constructor(pages: KeptPages, units: readonly Unit[], length: number) {
    super();
    this.#pages = pages;
    this.units = units;
    this.length = length;
  }

  override copyTo(into: Uint8Array): void {
    this.#pages.put(into, this);
  }
}

function isAt(bytes: Buffer, at: number, end: number, unit: Unit): boolean {
  const length = end - at;
  if (unit !== null && unit.length !== length) return false;
  return bytes.compare(unit ?? ZEROES, 0, length, at, end) === 0;
}
