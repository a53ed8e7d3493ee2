// Command queues of the guest's own: the queues of its CMDQV, each of which becomes one of the hardware's when the guest enables it.
//
//     BASE, CMDQ_ALLOC, EN of CMDQV, VINTF and queue ─ all there ─▶ HW_QUEUE_ALLOC ─▶ CONS, PROD, CONFIG are written to the hardware's registers
//                                              all of the VINTF's queues so  └▶ VINTF page 0 is the hardware's page: no more traps
//     ALLOC or an EN but the queue's gone, another BASE ─▶ registers are read back, the queue is freed
//
// Other accesses are traps; what they find is the hardware's where the queue is. A queue that the guest disables stays the hardware's. The host takes
// queues in ascending order and gives them back in descending order: a queue waits for the one before it.

import type { CmdqvRegisters, QueueRegisters } from "../../../host/arch/smmuv3/parts/cmdqv-registers.ts";
import {
  VCMDQ_EN,
  VCMDQ_GERROR_BITS,
  VCMDQ_INIT_ERR,
  VCMDQ_REG,
  VCMDQ_STRIDE,
} from "../../../host/arch/smmuv3/tegra241-cmdqv.ts";
import type { MmioPort } from "../../../host/base/mmio.ts";
import { bytesOf, type Stateful, type StateReader, type StateRecord } from "../../../host/base/state.ts";
import type { HardwareQueues } from "../host-port.ts";

const COMMAND_LOG2 = 4;
/** Words a queue keeps: page 0's six, then page 1's four. */
const WORDS = 10;
const PAGE1_WORD = 6;
const GUEST = 0;
/** What a queue takes with it to the hardware, in this order, and back. */
const CARRIED = [VCMDQ_REG.CONS, VCMDQ_REG.PROD, VCMDQ_REG.CONFIG] as const;

/** A logical queue that the hardware has. */
interface HostedQueue {
  readonly id: number;
  /** Which of the guest's it is, and its BASE. */
  readonly queue: number;
  readonly base: bigint;
}

export interface GuestQueuesParts {
  readonly registers: CmdqvRegisters;
  readonly host: HardwareQueues;
  /** log2 of the commands of a queue, at most. */
  readonly mostLog2: number;
  /** The hardware's page takes the place of VINTF page 0, or leaves it (null). */
  readonly showPage: (page: MmioPort | null) => void;
  /** A queue could not be made: an error of its own, which is signalled. */
  readonly failed: (queue: number) => void;
  readonly report: (message: string) => void;
}

export class GuestQueues implements QueueRegisters, Stateful {
  readonly #parts: GuestQueuesParts;
  readonly #words: Uint32Array;
  /** By logical index. */
  readonly #hosted: HostedQueue[] = [];
  /** Per queue: the BASE with which the host refused it; it is not asked again before something changes. */
  readonly #refused: (bigint | null)[];
  #page: MmioPort | null = null; // not state: the hardware's

  constructor(count: number, parts: GuestQueuesParts) {
    this.#parts = parts;
    this.#words = new Uint32Array(count * WORDS);
    this.#refused = new Array<bigint | null>(count).fill(null);
  }

  /** Queues that the hardware has. */
  get hosted(): number {
    return this.#hosted.length;
  }

  // --- registers ---------------------------------------------------------------------------------------------------------------

  read(queue: number, offset: number): number {
    if (offset > VCMDQ_REG.GERRORN) return 0;
    const logical = this.#logicalOf(queue);
    if (logical >= 0) return this.#page!.mmioRead(logical * VCMDQ_STRIDE + offset, 4) >>> 0;
    return this.#words[queue * WORDS + (offset >> 2)]!;
  }

  write(queue: number, offset: number, value: number): void {
    const logical = this.#logicalOf(queue);
    if (logical >= 0) {
      this.#page!.mmioWrite(logical * VCMDQ_STRIDE + offset, 4, value, 0);
      return;
    }
    const at = queue * WORDS + (offset >> 2);
    if (offset === VCMDQ_REG.PROD) this.#words[at] = value & 0xfffff;
    else if (offset === VCMDQ_REG.CONS) this.#words[at] = value & 0x7f0fffff;
    else if (offset === VCMDQ_REG.GERRORN) this.#words[at] = value & VCMDQ_GERROR_BITS;
    else if (offset === VCMDQ_REG.CONFIG) {
      this.#words[at] = value & VCMDQ_EN;
      this.#refused[queue] = null;
      this.settle();
    }
  }

  readPage1(queue: number, offset: number): number {
    return offset < 16 ? this.#words[queue * WORDS + PAGE1_WORD + (offset >> 2)]! : 0;
  }

  writePage1(queue: number, offset: number, value: number): void {
    // As the hardware has it: where a queue stands does not change while it runs.
    if (offset >= 16 || this.read(queue, VCMDQ_REG.STATUS) !== 0) return;
    this.#words[queue * WORDS + PAGE1_WORD + (offset >> 2)] = (offset & 4) !== 0 ? value & 0xffff : value;
    this.settle();
  }

  errors(queue: number): number {
    return this.read(queue, VCMDQ_REG.GERROR) ^ this.read(queue, VCMDQ_REG.GERRORN);
  }

  setOn(): void {
    this.#refused.fill(null);
    this.settle();
  }

  conditionsChanged(queue: number): void {
    this.#refused[queue] = null;
    this.settle();
  }

  // --- the hardware's queues ---------------------------------------------------------------------------------------------------

  /** Makes the hardware's queues those that the guest has set up. */
  settle(): void {
    const wanted = this.#wanted();
    let same = 0;
    while (same < this.#hosted.length && same < wanted.length && this.#isHosted(same, wanted[same]!)) same++;
    while (this.#hosted.length > same) this.#giveBack();
    for (const queue of wanted.slice(same)) if (!this.#take(queue)) break;
    this.#showPage();
  }

  /** Nobody but the hardware need hear of stores to the page once all queues on it are the hardware's. */
  #showPage(): void {
    const { allocation } = this.#parts.registers;
    const all = this.#hosted.length > 0 && this.#hosted.length === allocation.count(GUEST);
    this.#show(all ? this.#page : null);
  }

  #shown: MmioPort | null = null; // not state: shown again where the page is
  #show(page: MmioPort | null): void {
    if (page === this.#shown) return;
    this.#shown = page;
    this.#parts.showPage(page);
  }

  /** The guest's queues in the order of their logical indexes, up to the first that cannot be the hardware's. */
  #wanted(): number[] {
    const { registers } = this.#parts;
    const queues: number[] = [];
    if (!registers.on || !registers.vintfs.enabled(GUEST)) return queues;
    for (let logical = 0; logical < registers.allocation.count(GUEST); logical++) {
      const queue = registers.allocation.queueOf(GUEST, logical);
      const hosted = this.#hosted[logical];
      const stays = hosted !== undefined && hosted.queue === queue && hosted.base === this.#base(queue);
      const enabled = this.#base(queue) !== 0n && (this.read(queue, VCMDQ_REG.CONFIG) & VCMDQ_EN) !== 0;
      if (!stays && !enabled) break;
      queues.push(queue);
    }
    return queues;
  }

  #isHosted(logical: number, queue: number): boolean {
    const hosted = this.#hosted[logical]!;
    return hosted.queue === queue && hosted.base === this.#base(queue);
  }

  /** False: the host would not. */
  #take(queue: number): boolean {
    const base = this.#base(queue);
    if (this.#refused[queue] === base) return false;
    const { host, mostLog2, report } = this.#parts;
    const log2 = Number(base & 0x1fn);
    const logical = this.#hosted.length;
    // The base is aligned to the queue's size, as the hardware does it.
    const bytes = 1n << BigInt(log2 + COMMAND_LOG2);
    const address = (base & ~0x1fn) - ((base & ~0x1fn) % bytes);
    const id = log2 < 1 || log2 > mostLog2 ? -1 : host.allocate(logical, address, bytes);
    const page = id < 0 ? id : host.page();
    if (typeof page === "number") {
      if (id >= 0) host.free(id);
      if (log2 >= 1 && log2 <= mostLog2) report(`the host refused command queue ${logical} of the guest (${page})`);
      this.#refused[queue] = base;
      this.#fail(queue);
      return false;
    }
    this.#page = page;
    this.#hosted.push({ id, queue, base });
    for (const offset of CARRIED) {
      page.mmioWrite(logical * VCMDQ_STRIDE + offset, 4, this.#words[queue * WORDS + (offset >> 2)]!, 0);
    }
    return true;
  }

  #giveBack(): void {
    const { id, queue } = this.#hosted.at(-1)!;
    for (const offset of [...CARRIED, VCMDQ_REG.GERROR, VCMDQ_REG.GERRORN]) {
      this.#words[queue * WORDS + (offset >> 2)] = this.read(queue, offset);
    }
    this.#hosted.pop();
    this.#parts.host.free(id);
  }

  #fail(queue: number): void {
    const at = queue * WORDS + (VCMDQ_REG.GERROR >> 2);
    if ((this.errors(queue) & VCMDQ_INIT_ERR) !== 0) return;
    this.#words[at] = this.#words[at]! ^ VCMDQ_INIT_ERR;
    this.#parts.failed(queue);
  }

  /** Index of a queue that the hardware has, -1 for one that it has not. */
  #logicalOf(queue: number): number {
    return this.#hosted.findIndex((hosted) => hosted.queue === queue);
  }

  #base(queue: number): bigint {
    const at = queue * WORDS + PAGE1_WORD;
    return (BigInt(this.#words[at + 1]!) << 32n) | BigInt(this.#words[at]!);
  }

  /** As at power-on; the registers have been reset. */
  reset(): void {
    while (this.#hosted.length > 0) this.#giveBack();
    this.#show(null);
    this.#words.fill(0);
    this.#refused.fill(null);
  }

  // --- state -------------------------------------------------------------------------------------------------------------------

  saveState(): StateRecord {
    return {
      words: bytesOf(this.#words),
      hosted: this.#hosted.map(({ id, queue, base }) => ({ id, queue, base })),
      refused: this.#refused.map((base) => (base === null ? null : { base })),
    };
  }

  /** The hardware's queues are the host's, who has them by name: a machine without them does not take the document. */
  restoreState(state: StateReader): void {
    state.memory("words", this.#words);
    const hosted = state.records("hosted").map((each) => ({
      id: each.number("id"),
      queue: each.number("queue"),
      base: each.bigint("base"),
    }));
    const named = new Set(hosted.map(({ queue }) => queue));
    if (named.size < hosted.length || hosted.some(({ queue }) => this.#refused[queue] === undefined))
      state.fail("hosted", `are not of ${this.#refused.length} queues`);
    this.#hosted.splice(0, this.#hosted.length, ...hosted);
    const refused = state.places("refused");
    if (refused.length !== this.#refused.length) state.fail("refused", `are not ${this.#refused.length}`);
    for (const [queue, each] of refused.entries()) this.#refused[queue] = each?.bigint("base") ?? null;
    if (hosted.length > 0 && this.#page === null) {
      const page = this.#parts.host.page();
      this.#page = typeof page === "number" ? state.fail("hosted", "are queues of a host that has none here") : page;
    }
    this.#showPage();
  }
}
