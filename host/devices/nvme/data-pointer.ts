// The data pointer of a command: physical region pages (PRP, NVMe 1.4 §4.3). PRP1 may start within a page; PRP2 is the second page
// or, when more than two pages are needed, a list of page addresses whose last entry leads to the next list. `resolve` collects
// the pages of one transfer, bounded by the maximum transfer size; data moves through one staging buffer.

import { pfnOfHalves } from "../../base/address.ts";
import { DMA_OK, type DmaStatus, NO_PASID } from "../ports.ts";
import { DATA_TRANSFER_ERROR, PAGE_BYTES, PRP_OFFSET_INVALID, SUCCESS, TRANSFER_BYTES } from "./commands.ts";
import type { Command } from "./queue.ts";

const ENTRY_BYTES = 8;
const MOST_PAGES = TRANSFER_BYTES / PAGE_BYTES + 1;

export type DeviceTransfer = (
  pfn: number,
  offset: number,
  bytes: Uint8Array,
  at: number,
  length: number,
  pasid: number,
) => DmaStatus;

// Not state: within one command.
export class DataPointer {
  /** Staging buffer: what is to be sent, or what came. */
  readonly buffer = new Uint8Array(TRANSFER_BYTES);
  /** Its pages: most transfers are of whole ones, and a view of a page need not be made for each. */
  readonly #bufferPages: readonly Uint8Array[];
  readonly #read: DeviceTransfer;
  readonly #write: DeviceTransfer;
  readonly #pages = new Float64Array(MOST_PAGES);
  readonly #list = new Uint8Array(PAGE_BYTES);
  readonly #listWords = new Uint32Array(this.#list.buffer);
  #firstOffset = 0;
  #count = 0;

  constructor(read: DeviceTransfer, write: DeviceTransfer) {
    this.#read = read;
    this.#write = write;
    const page = (n: number): Uint8Array => this.buffer.subarray(n * PAGE_BYTES, (n + 1) * PAGE_BYTES);
    this.#bufferPages = Array.from({ length: TRANSFER_BYTES / PAGE_BYTES }, (_, n) => page(n));
  }

  /** Sends the first `length` bytes of the buffer, 0 to TRANSFER_BYTES, to the host. Returns a status. */
  toHost(command: Command, length: number): number {
    return this.#transfer(command, length, this.#write);
  }

  /** Fetches `length` bytes from the host into the buffer. */
  fromHost(command: Command, length: number): number {
    return this.#transfer(command, length, this.#read);
  }

  #transfer(command: Command, length: number, move: DeviceTransfer): number {
    const status = this.#resolve(command.words, length);
    if (status !== SUCCESS) return status;
    let done = 0;
    let offset = this.#firstOffset;
    for (let i = 0; i < this.#count; i++) {
      const piece = Math.min(PAGE_BYTES - offset, length - done);
      const whole = piece === PAGE_BYTES && done % PAGE_BYTES === 0;
      const moved = whole
        ? move(this.#pages[i]!, 0, this.#bufferPages[done / PAGE_BYTES]!, 0, PAGE_BYTES, NO_PASID)
        : move(this.#pages[i]!, offset, this.buffer, done, piece, NO_PASID);
      if (moved !== DMA_OK) return DATA_TRANSFER_ERROR;
      done += piece;
      offset = 0;
    }
    return SUCCESS;
  }

  #resolve(words: Uint32Array, length: number): number {
    this.#count = 0;
    if (length === 0) return SUCCESS;
    const low = words[6]!;
    if ((low & 3) !== 0) return PRP_OFFSET_INVALID;
    this.#firstOffset = low & (PAGE_BYTES - 1);
    this.#pages[this.#count++] = pfnOfHalves(low, words[7]!);
    const rest = length - (PAGE_BYTES - this.#firstOffset);
    if (rest <= 0) return SUCCESS;
    if (rest > PAGE_BYTES) return this.#resolveList(words[8]!, words[9]!, Math.ceil(rest / PAGE_BYTES));
    if ((words[8]! & (PAGE_BYTES - 1)) !== 0) return PRP_OFFSET_INVALID;
    this.#pages[this.#count++] = pfnOfHalves(words[8]!, words[9]!);
    return SUCCESS;
  }

  #resolveList(firstLow: number, firstHigh: number, pages: number): number {
    let low = firstLow;
    let high = firstHigh;
    for (let left = pages; left > 0; ) {
      // A list entry is a qword; a list need not start its page, a later one has to by being full (§4.3).
      if ((low & (ENTRY_BYTES - 1)) !== 0) return PRP_OFFSET_INVALID;
      const offset = low & (PAGE_BYTES - 1);
      const room = (PAGE_BYTES - offset) / ENTRY_BYTES;
      const entries = Math.min(left, room);
      const pfn = pfnOfHalves(low, high);
      if (this.#read(pfn, offset, this.#list, 0, entries * ENTRY_BYTES, NO_PASID) !== DMA_OK)
        return DATA_TRANSFER_ERROR;
      // When the list does not fit its page, the page's last entry is the address of the next list.
      const chained = left > room;
      const used = chained ? entries - 1 : entries;
      for (let i = 0; i < used; i++) {
        if ((this.#listWords[2 * i]! & (PAGE_BYTES - 1)) !== 0) return PRP_OFFSET_INVALID;
        this.#pages[this.#count++] = pfnOfHalves(this.#listWords[2 * i]!, this.#listWords[2 * i + 1]!);
      }
      left -= used;
      if (chained) {
        low = this.#listWords[2 * used]!;
        high = this.#listWords[2 * used + 1]!;
        // Only the first list may start anywhere: each link has to lead to the start of a page, so each adds pages.
        if ((low & (PAGE_BYTES - 1)) !== 0) return PRP_OFFSET_INVALID;
      }
    }
    return SUCCESS;
  }
}
