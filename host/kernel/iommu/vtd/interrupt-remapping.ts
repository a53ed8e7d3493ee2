// Interrupt remapping (VT-d §5.1, §9.9) as Linux uses it (irq_remapping.c): one table of 65,536 entries a unit. A message of a device names an entry by
// handle and subhandle; the entry holds destination and vector, and by whom it may be used. What the entry says is the message that the device would have
// written by itself: 0xFEE0_0000 plus destination, with the vector as data.
//
//     remap(device, messages) ──▶ consecutive entries, one a message ──▶ interrupt entry cache told ──▶ remappable address and subhandles

import { IRTE, IRTE_BYTES } from "../../../arch/vtd/interrupt-remapping.ts";
import { DESCRIPTOR_INTERRUPT_ENTRY } from "../../../arch/vtd/invalidation-descriptors.ts";
import { IRTA_EIME } from "../../../arch/vtd/registers.ts";
import type { HpaPfn } from "../../../base/address.ts";
import type { Stateful, StateReader, StateRecord } from "../../../base/state.ts";
import { ENOMEM, ENOSPC } from "../../../uapi/errno.ts";
import type { HostFrames } from "../../host-frames.ts";
import type { RemappedMessage } from "../../interrupts.ts";
import { numbersOf, refillSet } from "../../same-objects.ts";
import { storeDoubleword } from "../doubleword.ts";
import type { IommuDevice } from "../driver.ts";
import type { VtdUnit } from "./unit.ts";

/** Linux: INTR_REMAP_TABLE_ENTRIES, INTR_REMAP_TABLE_REG_SIZE. */
const ENTRIES = 65536;
const SIZE_CODE = 15;
const TABLE_PAGES = (ENTRIES * IRTE_BYTES) / 4096;

const MESSAGE_BASE = 0xfee0_0000n;
/** What no destination has: below it is a message's own business. */
const MESSAGE_MASK = 0xfff0_0000n;
const SHV = 1n << 3n;
const REMAPPABLE = 1n << 4n;
const INDEX_SELECTIVE = 1 << 4;
const COMPARE_SOURCE = 1n;

export class InterruptRemapping implements Stateful {
  readonly #unit: VtdUnit;
  readonly #table: HpaPfn;
  readonly #frames: HostFrames;
  readonly #used = new Set<number>();

  private constructor(unit: VtdUnit, table: HpaPfn, frames: HostFrames) {
    this.#unit = unit;
    this.#table = table;
    this.#frames = frames;
  }

  /** A table without entries, or -ENOMEM. */
  static create(unit: VtdUnit, frames: HostFrames): InterruptRemapping | number {
    const table = frames.allocate(TABLE_PAGES, TABLE_PAGES);
    return table < 0 ? -ENOMEM : new InterruptRemapping(unit, table as HpaPfn, frames);
  }

  /** IRTA: destinations of 32 bits where the unit has them (Linux: with x2APIC). */
  get registerValue(): bigint {
    return (BigInt(this.#table) << 12n) | BigInt(this.#extended ? IRTA_EIME : 0) | BigInt(SIZE_CODE);
  }

  get #extended(): boolean {
    return this.#unit.features.EIM;
  }

  /** Entries in use. */
  get entries(): number {
    return this.#used.size;
  }

  /** Remaps a power of two of messages of a device; null for what is no message of this architecture, -ENOSPC. */
  remap(
    device: IommuDevice,
    messages: readonly { readonly address: bigint; readonly data: number }[],
  ): readonly RemappedMessage[] | null | number {
    if (messages.some(({ address }) => (address & MESSAGE_MASK) !== MESSAGE_BASE)) return null;
    const first = this.#take(messages.length);
    if (first < 0) return first;
    for (const [i, { address, data }] of messages.entries()) {
      this.#write(first + i, this.#entryFor(device, address, data));
    }
    this.#forget(first, messages.length);
    const handle = (BigInt(first & 0x7fff) << 5n) | (BigInt(first >>> 15) << 2n);
    return messages.map((_, i) => ({
      address: MESSAGE_BASE | handle | SHV | REMAPPABLE,
      data: i,
      free: () => this.#giveBack(first + i),
    }));
  }

  /** Fixed delivery, edge, by physical id, for this requester only (Linux: prepare_irte, set_msi_sid: RH = 1, SVT = 1, SQ = 0). */
  #entryFor(device: IommuDevice, address: bigint, data: number): readonly [bigint, bigint] {
    const words = [0n, 0n];
    const destination = (address >> 12n) & 0xffn;
    IRTE.set(words, "P", 1n);
    IRTE.set(words, "RH", 1n);
    IRTE.set(words, "V", BigInt(data));
    IRTE.set(words, "DST", this.#extended ? destination : destination << 8n);
    IRTE.set(words, "SID", BigInt(this.#unit.sourceIdOf(device)));
    IRTE.set(words, "SVT", COMPARE_SOURCE);
    return [words[0]!, words[1]!];
  }

  /** The lowest free run, aligned to its length. */
  #take(count: number): number {
    for (let first = 0; first + count <= ENTRIES; first += count) {
      let free = true;
      for (let i = first; i < first + count && free; i++) free = !this.#used.has(i);
      if (!free) continue;
      for (let i = first; i < first + count; i++) this.#used.add(i);
      return first;
    }
    return -ENOSPC;
  }

  #giveBack(index: number): void {
    this.#write(index, [0n, 0n]);
    this.#forget(index, 1);
    this.#used.delete(index);
  }

  #write(index: number, [first, second]: readonly [bigint, bigint]): void {
    const at = index * IRTE_BYTES;
    const page = (this.#table + (at >> 12)) as HpaPfn;
    storeDoubleword(this.#frames.memory, page, (at & 4095) + 8, second);
    storeDoubleword(this.#frames.memory, page, at & 4095, first);
  }

  #forget(index: number, count: number): void {
    const { queue } = this.#unit;
    queue.pushHalves(DESCRIPTOR_INTERRUPT_ENTRY | INDEX_SELECTIVE | (Math.log2(count) << 27), index, 0, 0);
    queue.sync();
  }

  /** Only when the hardware no longer reads it. */
  free(): void {
    this.#frames.release(this.#table, TABLE_PAGES);
  }

  /** The entries are in memory. */
  saveState(): StateRecord {
    return { used: [...this.#used] };
  }

  restoreState(state: StateReader): void {
    refillSet(this.#used, numbersOf(state, "used"));
  }
}
