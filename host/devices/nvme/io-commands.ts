// The NVM command set (NVMe 1.4 §6): read, write, flush, compare, write zeroes, dataset management, on one namespace. Data
// goes store → staging buffer → host, or back. A failing store becomes a media error, a failing DMA a data transfer error.

import { BLOCK_OK, type BlockStore } from "./block-store.ts";
import {
  COMPARE,
  COMPARE_FAILURE,
  DATASET_MANAGEMENT,
  EVERY_NAMESPACE,
  FEATURE_VOLATILE_WRITE_CACHE,
  FLUSH,
  INVALID_FIELD,
  INVALID_NAMESPACE,
  INVALID_OPCODE,
  LBA_OUT_OF_RANGE,
  NAMESPACE,
  READ,
  SUCCESS,
  TRANSFER_BYTES,
  UNRECOVERED_READ_ERROR,
  WRITE,
  WRITE_FAULT,
  WRITE_ZEROES,
} from "./commands.ts";
import type { DataPointer } from "./data-pointer.ts";
import type { Features } from "./features.ts";
import type { LogPages } from "./log-pages.ts";
import type { Command } from "./queue.ts";

/** Dword 12: Force Unit Access. */
const FORCE_UNIT_ACCESS = 1 << 30;
/** Dword 11 of Dataset Management: Deallocate. */
const DEALLOCATE = 1 << 2;
const RANGE_BYTES = 16;

// Not state: within one command.
export class IoCommands {
  readonly #store: BlockStore;
  readonly #data: DataPointer;
  readonly #features: Features;
  readonly #logs: LogPages;
  readonly #range = { first: 0, count: 0, bytes: 0 };
  readonly #compared = new Uint8Array(TRANSFER_BYTES);

  constructor(store: BlockStore, data: DataPointer, features: Features, logs: LogPages) {
    this.#store = store;
    this.#data = data;
    this.#features = features;
    this.#logs = logs;
  }

  /** Blocks that a command reads or writes; for its timing. */
  static blocksTouched(command: Command): number {
    const { opcode } = command;
    const hasLength = opcode === READ || opcode === WRITE || opcode === COMPARE || opcode === WRITE_ZEROES;
    return hasLength ? (command.words[12]! & 0xffff) + 1 : 0;
  }

  /** Carries out a command; returns its status. */
  execute(command: Command): number {
    const { opcode, namespace } = command;
    if (namespace !== NAMESPACE && !(opcode === FLUSH && namespace === EVERY_NAMESPACE)) {
      return known(opcode) ? INVALID_NAMESPACE : INVALID_OPCODE;
    }
    switch (opcode) {
      case READ:
        return this.#read(command);
      case WRITE:
        return this.#write(command);
      case FLUSH:
        return this.#flush();
      case COMPARE:
        return this.#compare(command);
      case WRITE_ZEROES:
        return this.#writeZeroes(command);
      case DATASET_MANAGEMENT:
        return this.#manageDataset(command);
      default:
        return INVALID_OPCODE;
    }
  }

  /** First block of a command, or -1 if its blocks are not all in the namespace. */
  #firstBlock({ words }: Command, count: number): number {
    const first = words[11]! * 2 ** 32 + words[10]!;
    // Compared so that nothing is rounded: `first` may be any 64-bit number, the store's size is below 2^53.
    return first <= this.#store.blocks - count ? first : -1;
  }

  /** Leaves what a command transfers in `#range`, or says why it cannot. */
  #transferRange(command: Command): number {
    const range = this.#range;
    range.count = (command.words[12]! & 0xffff) + 1;
    range.bytes = range.count * this.#store.blockBytes;
    if (range.bytes > TRANSFER_BYTES) return INVALID_FIELD;
    range.first = this.#firstBlock(command, range.count);
    return range.first < 0 ? LBA_OUT_OF_RANGE : SUCCESS;
  }

  #read(command: Command): number {
    const refused = this.#transferRange(command);
    if (refused !== SUCCESS) return refused;
    const { first, count, bytes } = this.#range;
    if (this.#store.read(first, count, this.#data.buffer, 0) !== BLOCK_OK)
      return this.#mediaError(UNRECOVERED_READ_ERROR);
    const status = this.#data.toHost(command, bytes);
    if (status === SUCCESS) this.#logs.recordRead(bytes);
    return status;
  }

  #write(command: Command): number {
    const refused = this.#transferRange(command);
    if (refused !== SUCCESS) return refused;
    const { first, count, bytes } = this.#range;
    const status = this.#data.fromHost(command, bytes);
    if (status !== SUCCESS) return status;
    if (this.#store.write(first, count, this.#data.buffer, 0) !== BLOCK_OK) return this.#mediaError(WRITE_FAULT);
    this.#logs.recordWrite(bytes);
    return this.#flushIfForced(command);
  }

  /** Forced Unit Access, or the write cache switched off (§5.21.1.6): the data has to be durable now. */
  #flushIfForced(command: Command): number {
    const forced = (command.words[12]! & FORCE_UNIT_ACCESS) !== 0;
    return forced || this.#features.value(FEATURE_VOLATILE_WRITE_CACHE) === 0 ? this.#flush() : SUCCESS;
  }

  #flush(): number {
    return this.#store.flush() === BLOCK_OK ? SUCCESS : this.#mediaError(WRITE_FAULT);
  }

  #compare(command: Command): number {
    const refused = this.#transferRange(command);
    if (refused !== SUCCESS) return refused;
    const { first, count, bytes } = this.#range;
    const status = this.#data.fromHost(command, bytes);
    if (status !== SUCCESS) return status;
    if (this.#store.read(first, count, this.#compared, 0) !== BLOCK_OK) return this.#mediaError(UNRECOVERED_READ_ERROR);
    this.#logs.recordRead(bytes);
    const { buffer } = this.#data;
    for (let i = 0; i < bytes; i++) {
      if (buffer[i] !== this.#compared[i]) return COMPARE_FAILURE;
    }
    return SUCCESS;
  }

  #writeZeroes(command: Command): number {
    const count = (command.words[12]! & 0xffff) + 1;
    const first = this.#firstBlock(command, count);
    if (first < 0) return LBA_OUT_OF_RANGE;
    if (this.#store.zero(first, count) !== BLOCK_OK) return this.#mediaError(WRITE_FAULT);
    return this.#flushIfForced(command);
  }

  /** Up to 256 ranges of context attributes, length, first block (§6.7). */
  #manageDataset(command: Command): number {
    const ranges = (command.words[10]! & 0xff) + 1;
    const status = this.#data.fromHost(command, ranges * RANGE_BYTES);
    if (status !== SUCCESS) return status;
    // Only Deallocate does something; the other attributes are hints.
    if ((command.words[11]! & DEALLOCATE) === 0) return SUCCESS;
    const view = new DataView(this.#data.buffer.buffer, 0, ranges * RANGE_BYTES);
    // All ranges are checked before any is given up.
    for (let pass = 0; pass < 2; pass++) {
      for (let at = 0; at < ranges * RANGE_BYTES; at += RANGE_BYTES) {
        const count = view.getUint32(at + 4, true);
        const first = view.getUint32(at + 12, true) * 2 ** 32 + view.getUint32(at + 8, true);
        if (pass === 0 && first > this.#store.blocks - count) return LBA_OUT_OF_RANGE;
        if (pass === 1 && count > 0 && this.#store.discard(first, count) !== BLOCK_OK)
          return this.#mediaError(WRITE_FAULT);
      }
    }
    return SUCCESS;
  }

  #mediaError(status: number): number {
    this.#logs.recordMediaError();
    return status;
  }
}

function known(opcode: number): boolean {
  return (
    opcode === READ ||
    opcode === WRITE ||
    opcode === FLUSH ||
    opcode === COMPARE ||
    opcode === WRITE_ZEROES ||
    opcode === DATASET_MANAGEMENT
  );
}
