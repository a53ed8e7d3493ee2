/**
 * A CMDQV as Linux's driver and QEMU's model describe it (tegra241-cmdqv.c): plain objects, every condition looked at anew whenever it matters, nothing
 * remembered that follows from something else. Shares no code with the hardware model; written for `nestbox fuzz smmuv3-cmdqv`.
 */
import type { Command } from "./adapter.ts";
import { bits } from "./identification.ts";

export interface Queue {
  cons: number;
  prod: number;
  enabled: boolean;
  /** What it needs to run is there; it runs unless its base was no good when that came about. */
  wanted: boolean;
  running: boolean;
  gerror: number;
  gerrorn: number;
  base: bigint;
  consIndexBase: bigint;
  /** CMDQ_ALLOC. */
  allocated: boolean;
  vintf: number;
  logical: number;
}

export interface Vintf {
  enabled: boolean;
  vmid: number;
  hypervisor: boolean;
  readonly match: number[];
  readonly replace: number[];
}

export interface World {
  /** log2 of the entries a queue may have, and of addresses. */
  readonly cmdqs: number;
  readonly outputBits: number;
  /** Two doublewords of memory; null: nothing is there. */
  command(address: bigint): Command | null;
  /** A command has its effect. */
  effect(command: Command): void;
  /** An edge of the wire. */
  edge(): void;
}

const CMDQ_ERR = 1;
const INIT_ERR = 4;
const ILL = 1;
const ABT = 2;
const ILL_ACCESS = 4;
/** Opcodes that an SMMU with every feature knows on its Non-secure queue (§4). */
const KNOWN = new Set([
  0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x10, 0x11, 0x12, 0x13, 0x20, 0x21, 0x22, 0x23, 0x28, 0x2a, 0x30, 0x40, 0x41,
  0x44, 0x45, 0x46,
]);
/** Those with an address and range. */
const RANGED = new Set([0x12, 0x13, 0x22, 0x23, 0x2a]);

export class CommandQueues {
  config = 0x00020083;
  readonly masks = [0, 0];
  readonly queues: Queue[];
  readonly vintfs: Vintf[];
  readonly #world: World;
  readonly #logs: { readonly queues: number; readonly vintfs: number; readonly sids: number };

  constructor(logs: { readonly queues: number; readonly vintfs: number; readonly sids: number }, world: World) {
    this.#logs = logs;
    this.#world = world;
    this.queues = Array.from({ length: 2 ** logs.queues }, () => ({
      cons: 0,
      prod: 0,
      enabled: false,
      wanted: false,
      running: false,
      gerror: 0,
      gerrorn: 0,
      base: 0n,
      consIndexBase: 0n,
      allocated: false,
      vintf: 0,
      logical: 0,
    }));
    this.vintfs = Array.from({ length: 2 ** logs.vintfs }, () => ({
      enabled: false,
      vmid: 0,
      hypervisor: false,
      match: new Array<number>(2 ** logs.sids).fill(0),
      replace: new Array<number>(2 ** logs.sids).fill(0),
    }));
  }

  // --- registers ---------------------------------------------------------------------------------------------------------------

  read(offset: number): number {
    if (offset < 0x1000) return this.#readTop(offset);
    if (offset < 0x10000) return this.#readVintf(Math.floor((offset - 0x1000) / 0x100), offset % 0x100);
    const queue = this.#queueAt(offset);
    if (queue === undefined) return 0;
    const at = offset % 0x80;
    const mask = 2 ** (this.#log2(queue) + 1) - 1;
    if (!this.#isPage0(offset)) {
      const word = at < 8 ? queue.base : queue.consIndexBase;
      return at < 16 ? Number((word >> (at % 8 === 0 ? 0n : 32n)) & 0xffffffffn) : 0;
    }
    const values = [
      (queue.cons & (0x7f000000 | mask)) >>> 0,
      queue.prod & mask,
      queue.enabled ? 1 : 0,
      queue.running ? 1 : 0,
      queue.gerror,
      queue.gerrorn,
    ];
    return values[at / 4] ?? 0;
  }

  write(offset: number, value: number): void {
    if (offset < 0x1000) this.#writeTop(offset, value);
    else if (offset < 0x10000) this.#writeVintf(Math.floor((offset - 0x1000) / 0x100), offset % 0x100, value);
    else {
      const queue = this.#queueAt(offset);
      if (queue === undefined) return;
      if (this.#isPage0(offset)) this.#writePage0(queue, offset % 0x80, value);
      else this.#writePage1(queue, offset % 0x80, value);
    }
  }

  #readTop(offset: number): number {
    const map = (failing: readonly boolean[], word: number) =>
      failing.slice(word * 32, word * 32 + 32).reduce((sum, set, at) => sum + (set ? 2 ** at : 0), 0);
    if (offset === 0) return this.config;
    if (offset === 4) return 1 + this.#logs.queues * 16 + this.#logs.vintfs * 256 + this.#logs.sids * 4096;
    if (offset === 8) return this.config & 1;
    if (offset === 0x14 || offset === 0x18) {
      return map(
        this.vintfs.map((_, index) => this.#of(index).some(isFailing)),
        (offset - 0x14) / 4,
      );
    }
    if (offset === 0x1c || offset === 0x20) return this.masks[(offset - 0x1c) / 4]!;
    if (offset >= 0x24 && offset < 0x34) return map(this.queues.map(isFailing), (offset - 0x24) / 4);
    const queue = offset >= 0x200 && offset < 0x400 ? this.queues[(offset - 0x200) / 4] : undefined;
    return queue === undefined ? 0 : (queue.allocated ? 1 : 0) + queue.logical * 2 + queue.vintf * 0x8000;
  }

  #readVintf(index: number, at: number): number {
    const vintf = this.vintfs[index];
    if (vintf === undefined) return 0;
    const queues = this.#of(index);
    if (at === 0) return (vintf.enabled ? 1 : 0) + vintf.vmid * 2 + (vintf.hypervisor ? 0x20000 : 0);
    if (at === 4) {
      const enabled = vintf.enabled && (this.config & 1) === 1;
      return (enabled ? 1 : 0) + (queues.some(isFailing) ? 2 : 0) + queues.length * 0x10000;
    }
    if (at >= 0x40 && at < 0x80) return vintf.match[(at - 0x40) / 4] ?? 0;
    if (at >= 0x80 && at < 0xc0) return vintf.replace[(at - 0x80) / 4] ?? 0;
    if (at < 0xc0 || at >= 0xd0) return 0;
    const first = ((at - 0xc0) / 4) * 32;
    return queues
      .filter((queue) => isFailing(queue) && queue.logical >= first && queue.logical < first + 32)
      .reduce((sum, { logical }) => sum + 2 ** (logical - first), 0);
  }

  #writeTop(offset: number, value: number): void {
    if (offset === 0) this.config = value & 0xfffff;
    else if (offset === 0x1c || offset === 0x20) this.masks[(offset - 0x1c) / 4] = value;
    else if (offset >= 0x200 && offset < 0x400) {
      const queue = this.queues[(offset - 0x200) / 4];
      if (queue !== undefined) this.#allocate(queue, value);
    }
    this.#conditions();
  }

  #allocate(queue: Queue, value: number): void {
    const wanted = (value & 1) === 1;
    if (queue.allocated) {
      const last = this.#of(queue.vintf).every(({ logical }) => logical <= queue.logical);
      if (wanted || !last) return;
    }
    queue.allocated = false;
    queue.logical = (value >>> 1) & 0x7f;
    queue.vintf = (value >>> 15) & 0x3f;
    queue.allocated = wanted && queue.vintf < this.vintfs.length && this.#of(queue.vintf).length === queue.logical;
  }

  #writeVintf(index: number, at: number, value: number): void {
    const vintf = this.vintfs[index];
    if (vintf === undefined) return;
    if (at === 0) {
      if (!vintf.enabled || (value & 1) === 0) {
        vintf.vmid = (value >>> 1) & 0xffff;
        vintf.hypervisor = (value & 0x20000) !== 0;
      }
      vintf.enabled = (value & 1) === 1;
      this.#conditions();
    } else if (at >= 0x40 && at < 0x80 && (at - 0x40) / 4 < vintf.match.length)
      vintf.match[(at - 0x40) / 4] = value & 0x1fffff;
    else if (at >= 0x80 && at < 0xc0 && (at - 0x80) / 4 < vintf.replace.length)
      vintf.replace[(at - 0x80) / 4] = value & 0xfffff;
  }

  #writePage0(queue: Queue, at: number, value: number): void {
    if (at === 0 && !queue.running) queue.cons = value & 0x7f0fffff;
    if (at === 4) queue.prod = value & 0xfffff;
    if (at === 8) {
      queue.enabled = (value & 1) === 1;
      this.#condition(queue);
    }
    if (at === 0x14) queue.gerrorn = value & 7;
  }

  #writePage1(queue: Queue, at: number, value: number): void {
    if (queue.running || at >= 16) return;
    const key = at < 8 ? "base" : "consIndexBase";
    const before = queue[key];
    queue[key] =
      at % 8 === 0 ? (before & ~0xffffffffn) | BigInt(value) : (before & 0xffffffffn) | (BigInt(value & 0xffff) << 32n);
  }

  // --- queues ------------------------------------------------------------------------------------------------------------------

  /** Queues of a VINTF. */
  #of(vintf: number): Queue[] {
    return this.queues.filter((queue) => queue.allocated && queue.vintf === vintf);
  }

  #queueAt(offset: number): Queue | undefined {
    const page = Math.floor(offset / 0x10000);
    const slot = Math.floor((offset % 0x10000) / 0x80);
    if (page <= 2) return this.queues[slot];
    return this.#of(Math.floor((page - 3) / 2)).find(({ logical }) => logical === slot);
  }

  #isPage0(offset: number): boolean {
    return Math.floor(offset / 0x10000) % 2 === 1;
  }

  #log2(queue: Queue): number {
    return Math.min(Number(queue.base & 0x1fn), this.#world.cmdqs);
  }

  #conditions(): void {
    for (const queue of this.queues) this.#condition(queue);
  }

  #condition(queue: Queue): void {
    const wanted = (this.config & 1) === 1 && queue.allocated && this.vintfs[queue.vintf]!.enabled && queue.enabled;
    if (wanted === queue.wanted) return;
    queue.wanted = wanted;
    const log2 = Number(queue.base & 0x1fn);
    if (wanted && (log2 > this.#world.cmdqs || this.#address(queue, 0) >= 1n << BigInt(this.#world.outputBits))) {
      this.#fail(queue, INIT_ERR);
    } else queue.running = wanted;
  }

  #address(queue: Queue, index: number): bigint {
    const size = 16n << BigInt(this.#log2(queue));
    const aligned = size < 32n ? 32n : size;
    return ((queue.base & ~0x1fn) / aligned) * aligned + 16n * BigInt(index);
  }

  #fail(queue: Queue, error: number): void {
    if (((queue.gerror ^ queue.gerrorn) & error) !== 0) return;
    queue.gerror ^= error;
    const masked = queue.allocated && ((this.masks[queue.vintf >> 5]! >>> (queue.vintf % 32)) & 1) === 1;
    if (queue.allocated && !masked) this.#world.edge();
  }

  /** All queues do what there is to do. */
  run(): void {
    for (const queue of this.queues) while (this.#runOne(queue)) {}
  }

  #runOne(queue: Queue): boolean {
    const entries = 2 ** this.#log2(queue);
    const cons = queue.cons & (2 * entries - 1);
    const waiting = (queue.prod - cons) & (2 * entries - 1);
    if (!queue.running || ((queue.gerror ^ queue.gerrorn) & CMDQ_ERR) !== 0) return false;
    if (waiting === 0 || waiting > entries) return false;
    const address = this.#address(queue, cons % entries);
    const command = address >= 1n << BigInt(this.#world.outputBits) ? null : this.#world.command(address);
    const error = command === null ? ABT : this.#execute(this.vintfs[queue.vintf]!, command);
    if (error === 0) {
      queue.cons = (cons + 1) & (2 * entries - 1);
      return true;
    }
    queue.cons = cons + error * 2 ** 24;
    this.#fail(queue, CMDQ_ERR);
    return false;
  }

  /** 0 or the error. */
  #execute(vintf: Vintf, [dw0, dw1]: Command): number {
    const opcode = Number(bits(dw0, 7n, 0n));
    const signal = bits(dw0, 13n, 12n);
    let word = dw0;
    if (!vintf.hypervisor) {
      if (!KNOWN.has(opcode)) return ILL;
      if (opcode === 0x46 ? signal !== 0n : ![0x11, 0x12, 0x40].includes(opcode)) return ILL_ACCESS;
      if (opcode === 0x11 || opcode === 0x12) word = (dw0 & ~(0xffffn << 32n)) | (BigInt(vintf.vmid) << 32n);
      if (opcode === 0x40) {
        const wanted = bits(dw0, 63n, 32n) * 2n + 1n;
        const pair = vintf.match.findIndex((match) => BigInt(match) === wanted);
        if (pair < 0) return ILL_ACCESS;
        word = (dw0 & 0xffffffffn) | (BigInt(vintf.replace[pair]!) << 32n);
      }
    }
    if (!KNOWN.has(opcode) || bits(dw0, 10n, 10n) === 1n) return ILL;
    if (opcode === 0x46 && signal !== 0n) return ILL;
    if (opcode === 0x40 && bits(dw1, 5n, 0n) > 52n) return ILL;
    if (opcode === 0x41 && bits(dw1, 13n, 12n) === 3n) return ILL;
    const range = bits(dw0, 16n, 12n) + bits(dw0, 24n, 20n) + bits(dw1, 9n, 8n);
    if (RANGED.has(opcode) && bits(dw1, 11n, 10n) !== 0n && range === 0n) return ILL;
    this.#world.effect([word, dw1]);
    return 0;
  }
}

function isFailing({ gerror, gerrorn }: Queue): boolean {
  return gerror !== gerrorn;
}
