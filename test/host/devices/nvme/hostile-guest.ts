// A guest that does anything to an NVMe controller, from a seed: registers, doorbells, commands with wild fields, queues and lists
// scribbled over, memory that refuses, resets at any time. Whatever it does, the controller neither throws nor piles up events,
// its status register stays meaningful, and after a reset it works.

import { MemoryBlockStore } from "../../../../host/devices/nvme/block-store.ts";
import { DATA, type Dwords, NvmeTestDriver } from "./test-driver.ts";

/** Events that a controller can have waiting: fetch, ready, shutdown, two lanes. */
const MOST_EVENTS = 5;
const STEPS = 150;

/** Numbers from a seed (mulberry32). */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** Another that gives the same numbers from here on. */
  copy(): Random {
    return new Random(this.#state);
  }

  /** 0 to 2^32 - 1. */
  word(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  }

  below(limit: number): number {
    return this.word() % limit;
  }

  pick<T>(values: readonly T[]): T {
    return values[this.below(values.length)]!;
  }
}

const REGISTERS = [0x00, 0x08, 0x0c, 0x10, 0x14, 0x1c, 0x20, 0x24, 0x28, 0x2c, 0x30, 0x34, 0x38] as const;
const CONFIGURATIONS = [0, 0x00460001, 0x00464001, 0x00468000, 1, 0xffffffff] as const;
const ADMIN_OPCODES = [0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 0x7f] as const;
const IO_OPCODES = [0, 1, 2, 5, 8, 9, 0x7f] as const;

function wildWord(random: Random): number {
  switch (random.below(6)) {
    case 0:
      return random.word();
    case 1:
      return random.pick([0, 1, 2, 7, 0xff, 0xffff, 0x10000, 0x7fffffff, 0x80000000, 0xffffffff]);
    case 2:
      return DATA + random.below(64) * 4096;
    case 3:
      return DATA + random.below(1 << 18);
    case 4:
      return (random.below(64) << 16) | random.below(20);
    default:
      return random.below(32);
  }
}

/** A command that is nearly right: blocks of the drive, data pages, a list that may be one. */
function plausibleCommand(random: Random): Dwords {
  const page = () => DATA + 0x100000 + random.below(256) * 4096;
  return {
    ...{ 1: 1, 6: page() + (random.below(4) === 0 ? 4 * random.below(1024) : 0), 8: page() },
    ...{ 10: random.below(300), 11: random.below(10) === 0 ? wildWord(random) : 4 * random.below(2) },
    12: random.below(4) === 0 ? random.below(2200) : random.below(16),
  };
}

function wildCommand(random: Random): Dwords {
  if (random.below(3) > 0) return plausibleCommand(random);
  const dwords: Dwords = { 1: random.below(8) === 0 ? wildWord(random) : 1 };
  for (const index of [6, 8, 10, 11, 12] as const) dwords[index] = wildWord(random);
  if (random.below(3) === 0) for (const index of [7, 9, 13, 14, 15] as const) dwords[index] = wildWord(random);
  if (random.below(20) === 0) dwords[0] = random.word() & 0xff00;
  return dwords;
}

/** One thing that such a guest does. */
export function step(nvme: NvmeTestDriver, random: Random): void {
  const { bus, controller } = nvme;
  const queueId = random.below(4);
  const queue = nvme.queues.get(queueId);
  switch (random.below(13)) {
    case 0:
      controller.mmioWrite(random.pick(REGISTERS), random.pick([4, 8]), wildWord(random), wildWord(random));
      break;
    case 1:
      if (random.below(6) === 0) nvme.write(0x14, random.pick(CONFIGURATIONS));
      else nvme.bus.run(20_000);
      break;
    case 2:
      nvme.write(0x1000 + 4 * random.below(40), random.below(3) === 0 ? random.word() : random.below(20));
      break;
    case 3:
    case 4:
    case 5:
      if (queue === undefined) break;
      for (let i = random.below(6); i >= 0; i--) {
        nvme.place(queueId, random.pick(queueId === 0 ? ADMIN_OPCODES : IO_OPCODES), wildCommand(random));
      }
      nvme.ring(queueId);
      break;
    case 6:
      if (nvme.read(0x1c) === 1 && random.below(10) > 0) break;
      nvme.queues.clear();
      nvme.enable(2 + random.below(30), random.below(10) === 0 ? wildWord(random) : 0x00460001);
      break;
    case 7: {
      // Queues 1 to 3, made without looking at the answers, at any place.
      if (!nvme.queues.has(0)) break;
      const at = DATA + random.below(64) * 8192;
      const size = (1 + random.below(20)) << 16;
      const id = 1 + random.below(3);
      const vector = random.below(4) === 0 ? random.below(18) : 0;
      bus.memory.fill(0, at, at + 8192);
      for (const opcode of [0x00, 0x04]) nvme.place(0, opcode, { 10: id });
      nvme.place(0, 0x05, { 6: at, 10: size | id, 11: (vector << 16) | 3 });
      nvme.place(0, 0x01, { 6: at + 0x1000, 10: size | id, 11: (id << 16) | 1 });
      nvme.ring(0);
      nvme.takeAll(0);
      if (random.below(4) > 0) bus.run(50_000);
      nvme.queues.set(id, {
        ...{ id, entries: (size >> 16) + 1, submissionAt: at + 0x1000, completionAt: at },
        ...{ tail: 0, head: 0, phase: 1 },
      });
      break;
    }
    case 8:
      for (let i = 0; i < 64; i++) nvme.view.setUint32(0x10000 + 4 * random.below(1 << 19), wildWord(random), true);
      break;
    case 9: {
      const refused = BigInt(random.below(1 << 10)) << 12n;
      const rare = random.below(4) === 0;
      bus.refuse = rare ? (address) => address >> 12n === refused >> 12n : () => false;
      break;
    }
    case 10:
      if (random.below(10) === 0) controller.reset();
      else controller.configWrite(random.below(1024) * 4, 4, wildWord(random));
      break;
    case 11:
      if (queue !== undefined) nvme.takeAll(queueId);
      break;
    default:
      bus.run(random.pick([0, 100, 1_000, 50_000, 2_000_000]));
  }
}

/** One run; returns what went wrong, or null. */
export function hostileRun(seed: number): string | null {
  const random = new Random(seed);
  const nvme = new NvmeTestDriver(new MemoryBlockStore(1 << 20, random.pick([512, 4096])));
  const { bus, controller } = nvme;
  try {
    for (let i = 0; i < STEPS; i++) {
      step(nvme, random);
      bus.transfers.length = bus.messages.length = bus.pins.length = 0;
      if (bus.clock.pending > MOST_EVENTS) return `${bus.clock.pending} events wait after step ${i}`;
      const status = nvme.read(0x1c);
      if ((status & ~0xf) !== 0 || ((status >> 2) & 3) === 3) return `CSTS is ${status} after step ${i}`;
    }
    bus.refuse = () => false;
    controller.reset();
    if (bus.clock.pending !== 0) return "events wait after a function-level reset";
    bus.enable();
    nvme.queues.clear();
    if (nvme.enable() !== 1) return "not ready after the reset";
    nvme.createIoQueue(1);
    nvme.view.setUint32(DATA, seed, true);
    const written = nvme.transfer(true, 3, 1);
    const back = nvme.transfer(false, 3, 1, DATA + 0x1000);
    if (written.status !== 0 || back.status !== 0) return "a transfer after the reset failed";
    if (nvme.view.getUint32(DATA + 0x1000, true) !== seed >>> 0) return "a transfer after the reset brought other data";
    return null;
  } catch (error) {
    return error instanceof Error ? (error.stack ?? error.message) : String(error);
  }
}
