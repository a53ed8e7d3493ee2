/**
 * `nestbox fuzz platform-arm64`: what an AArch64 guest can do to its platform. The GICv2 with its message frame against an oracle of its own
 * (test/oracle/gicv2), by a driver that keeps to the architecture; then anything at all, any size, any offset: no exception, no growth. PSCI against the
 * table of DEN 0022. Device trees of random machines, read back: no dangling reference, no two nodes of one name, no two owners of an address or a wire.
 */

import type { Finding, Fuzzer } from "../../vmm/cli/fuzzer.ts";
import { GicV2, VIRTUAL_TIMER } from "../../vmm/platform/gicv2.ts";
import { GicV2mFrame } from "../../vmm/platform/gicv2m.ts";
import { GicOracle } from "../oracle/gicv2/gic.ts";
import { Random } from "../oracle/random.ts";
import { randomTree } from "./platform-arm64/device-trees.ts";
import { Disagreement, expectSame } from "./platform-arm64/disagreement.ts";
import { randomFirmwareCalls } from "./platform-arm64/firmware-calls.ts";

const OPERATIONS = 400;
const MESSAGES = 32;

/** Both interrupt controllers, and the world that drives them. */
class Pair {
  readonly gic: GicV2;
  readonly oracle: GicOracle;
  readonly frame: GicV2mFrame;
  readonly cpus: number;
  readonly lines: number;
  readonly firstMessage: number;
  running = 0;
  readonly timer: boolean[];
  readonly #irq: boolean[];
  readonly #viaTimer: boolean[];
  /** By CPU: what was acknowledged and not ended, the last one last; and what has yet to be deactivated. */
  readonly acknowledged: number[][];
  readonly undeactivated: number[][];

  constructor(random: Random) {
    this.cpus = 1 + random.below(8);
    this.lines = 32 * (3 + random.below(8));
    this.firstMessage = this.lines - MESSAGES;
    this.timer = Array.from({ length: this.cpus }, () => false);
    this.#irq = this.timer.slice();
    this.#viaTimer = this.timer.slice();
    this.acknowledged = Array.from({ length: this.cpus }, () => []);
    this.undeactivated = Array.from({ length: this.cpus }, () => []);
    this.gic = new GicV2(this.cpus, this.lines, {
      running: () => this.running,
      signal: (cpu, irq, timer) => {
        this.#irq[cpu] = irq;
        this.#viaTimer[cpu] = timer;
      },
      timerLevel: (cpu) => this.timer[cpu]!,
    });
    this.frame = new GicV2mFrame(this.firstMessage, MESSAGES, (id) => this.gic.pulse(id));
    this.oracle = new GicOracle(this.cpus, this.lines);
  }

  /** What the core makes of the two lines that it is given. */
  irq(cpu: number): boolean {
    return this.#irq[cpu]! || (this.#viaTimer[cpu]! && this.timer[cpu]!);
  }

  compare(): void {
    for (let cpu = 0; cpu < this.cpus; cpu++) {
      expectSame(`IRQ of CPU ${cpu}`, this.irq(cpu), this.oracle.irq(cpu));
    }
  }

  /** Every register that can be read without an effect, as the running CPU sees it. */
  compareRegisters(): void {
    const { gic, oracle, running: cpu } = this;
    const word = (offset: number): number => gic.distributor.mmioRead(offset, 4) >>> 0;
    const bits = (of: (id: number) => boolean, first: number): number => {
      let value = 0;
      for (let i = 0; i < 32; i++) if (of(first + i)) value += 2 ** i;
      return value;
    };
    const it = (id: number) => oracle.interrupt(cpu, id)!;
    for (let first = 0; first < this.lines; first += 32) {
      const at = first / 8;
      for (const base of [0x100, 0x180])
        expectSame(
          `enable ${first}`,
          word(base + at),
          bits((id) => it(id).enabled, first),
        );
      for (const base of [0x200, 0x280])
        expectSame(
          `pending ${first}`,
          word(base + at),
          bits((id) => oracle.isPending(it(id)), first),
        );
      for (const base of [0x300, 0x380])
        expectSame(
          `active ${first}`,
          word(base + at),
          bits((id) => it(id).active, first),
        );
      for (let id = first; id < first + 32; id++) {
        expectSame(`priority of ${id}`, gic.distributor.mmioRead(0x400 + id, 1), it(id).priority);
        const targets = this.cpus === 1 ? 0 : id < 32 ? 1 << cpu : it(id).targets;
        expectSame(`targets of ${id}`, gic.distributor.mmioRead(0x800 + id, 1), targets);
        const configuration = (word(0xc00 + Math.floor(id / 16) * 4) >>> ((id % 16) * 2)) & 3;
        expectSame(`configuration of ${id}`, configuration, it(id).edge ? 2 : 0);
      }
    }
    expectSame("GICC_RPR", gic.cpuInterface.mmioRead(0x14, 4), oracle.runningPriority(cpu));
  }
}

/** One thing that a driver, a device or a wire does, to both. */
function step(pair: Pair, random: Random): void {
  const { gic, oracle, lines, cpus } = pair;
  const cpu = random.below(cpus);
  pair.running = cpu;
  const own = oracle.cpus[cpu]!;
  // few interrupts, so that they meet
  const some = [0, 1, 5, 15, 16, VIRTUAL_TIMER, 31, 32, 33, 34, 40, pair.firstMessage, pair.firstMessage + 1];
  const id = random.chance(85) ? random.pick(some) : random.below(lines);
  const it = oracle.interrupt(cpu, id)!;
  const priority = random.pick([0, 1, 0x40, 0x41, 0x80, 0x81, 0xa0, 0xfe, 0xff, random.below(256)]);
  const setBit = (base: number): void =>
    gic.distributor.mmioWrite(base + Math.floor(id / 32) * 4, 4, 2 ** (id % 32), 0);
  switch (random.below(19)) {
    case 0:
      oracle.forwarding = random.chance(90);
      gic.distributor.mmioWrite(0, 4, oracle.forwarding ? 1 : 0, 0);
      break;
    case 1:
      setBit(0x100);
      it.enabled = true;
      break;
    case 2:
      setBit(0x180);
      if (id >= 16) it.enabled = false;
      break;
    case 3:
      setBit(0x200);
      if (id >= 16) it.latched = true;
      break;
    case 4:
      setBit(0x280);
      if (id >= 16) it.latched = false;
      break;
    case 5:
      gic.distributor.mmioWrite(0x400 + id, 1, priority, 0);
      it.priority = priority;
      break;
    case 6: {
      const targets = random.below(256);
      gic.distributor.mmioWrite(0x800 + id, 1, targets, 0);
      if (id >= 32) it.targets = targets & ((1 << cpus) - 1);
      break;
    }
    case 7: {
      if (id < 32) break;
      // §4.3.13: UNPREDICTABLE while the interrupt is enabled; what was pending may be forgotten
      const offset = 0xc00 + Math.floor(id / 16) * 4;
      const edge = random.chance(50);
      const before = gic.distributor.mmioRead(offset, 4);
      const shift = (id % 16) * 2;
      gic.distributor.mmioWrite(offset, 4, ((before & ~(3 << shift)) | (edge ? 2 << shift : 0)) >>> 0, 0);
      it.edge = edge;
      break;
    }
    case 8: {
      const [filter, list, sgi] = [random.below(4), random.below(256), random.pick([0, 1, 5, 15])];
      gic.distributor.mmioWrite(0xf00, 4, ((filter << 24) | (list << 16) | sgi) >>> 0, 0);
      if (filter < 3) oracle.generate(cpu, filter, list, sgi);
      break;
    }
    case 9: {
      const sgi = random.pick([0, 1, 5, 15]);
      const senders = random.below(2 ** cpus);
      const set = random.chance(50);
      gic.distributor.mmioWrite((set ? 0xf20 : 0xf10) + sgi, 1, senders, 0);
      const its = oracle.interrupt(cpu, sgi)!;
      for (let sender = 0; sender < cpus; sender++) {
        if ((senders & (1 << sender)) === 0) continue;
        if (set) its.senders.add(sender);
        else its.senders.delete(sender);
      }
      break;
    }
    case 10:
    case 11: {
      const level = random.chance(50);
      if (id < 32) {
        pair.timer[cpu] = level;
        oracle.input(cpu, VIRTUAL_TIMER, level);
      } else {
        gic.setWire(id, level);
        oracle.input(0, id, level);
      }
      break;
    }
    case 12: {
      const message = random.chance(80) ? pair.firstMessage + random.below(2) : random.word();
      const offset = random.chance(90) ? 0x40 : random.below(1024) * 4;
      pair.frame.store32(offset, message);
      const number = message & 0x3ff;
      const known = number >= pair.firstMessage && number < pair.firstMessage + MESSAGES;
      if (offset === 0x40 && known) oracle.message(number);
      break;
    }
    case 13:
      own.mask = random.chance(60) ? 0xff : priority;
      gic.cpuInterface.mmioWrite(4, 4, own.mask, 0);
      break;
    case 14:
      own.binaryPoint = random.below(8);
      gic.cpuInterface.mmioWrite(8, 4, own.binaryPoint, 0);
      break;
    case 15: {
      own.enabled = random.chance(90);
      // changing the mode with interrupts active loses track of who is to be deactivated
      const idle = pair.acknowledged[cpu]!.length === 0;
      if (idle) own.separateDeactivation = random.chance(40);
      const control = (own.enabled ? 1 : 0) | (own.separateDeactivation ? 0x200 : 0);
      gic.cpuInterface.mmioWrite(0, 4, control, 0);
      break;
    }
    case 16:
    case 17: {
      const answer = gic.cpuInterface.mmioRead(0x0c, 4);
      expectSame(`GICC_IAR of CPU ${cpu}`, answer, oracle.acknowledge(cpu));
      if (answer < 1020 || (answer & 0x3ff) < 16) pair.acknowledged[cpu]!.push(answer);
      break;
    }
    default: {
      const last = pair.acknowledged[cpu]!.pop();
      const waits = pair.undeactivated[cpu]!;
      if (last !== undefined) {
        gic.cpuInterface.mmioWrite(0x10, 4, last, 0);
        oracle.endOfInterrupt(cpu, last);
        if (own.separateDeactivation) waits.push(last);
      } else if (waits.length > 0 && own.separateDeactivation) {
        const one = waits.splice(random.below(waits.length), 1)[0]!;
        gic.cpuInterface.mmioWrite(0x1000, 4, one, 0);
        oracle.deactivate(cpu, one);
      }
    }
  }
}

function againstOracle(random: Random): void {
  const pair = new Pair(random);
  for (let done = 0; done < OPERATIONS; done++) {
    step(pair, random);
    pair.compare();
    if (done % 40 === 39) pair.compareRegisters();
  }
}

/** A guest that keeps to nothing. */
function hostile(random: Random): void {
  const pair = new Pair(random);
  for (let done = 0; done < OPERATIONS; done++) {
    pair.running = random.below(pair.cpus);
    const size = random.pick([1, 2, 4, 8] as const);
    const port = random.pick([pair.gic.distributor, pair.gic.cpuInterface, pair.frame]);
    const offset = random.chance(70)
      ? random.pick([0, 4, 8, 0xc, 0x10, 0x40, 0xf00, 0xf10, 0xf20, 0x1000])
      : random.below(0x2000);
    if (random.chance(40)) {
      const value = port.mmioRead(offset, size);
      if (!Number.isInteger(value) || value < 0 || value >= 2 ** 32) throw new Disagreement(`a read of ${value}`);
    } else port.mmioWrite(offset, size, random.word(), random.word());
    if (random.chance(30)) pair.gic.setWire(random.below(2048), random.chance(50));
    if (random.chance(10)) pair.gic.pulse(random.word());
  }
  const state = pair.gic.saveState();
  const stacks = state.running as readonly (readonly number[])[];
  if (stacks.some((stack) => stack.length > 256)) throw new Disagreement("more priorities run than there are");
}

export const fuzzer: Fuzzer = {
  about: "an AArch64 machine's GICv2, message frame, PSCI and device tree: oracles, and hostile accesses",
  round: (seed, count): Finding | null => {
    const random = new Random(seed);
    try {
      switch (seed % 8) {
        case 0:
          hostile(random);
          count("hostile accesses", OPERATIONS);
          break;
        case 1:
          count("firmware calls", randomFirmwareCalls(random));
          break;
        case 2:
          randomTree(random);
          count("device trees", 1);
          break;
        default:
          againstOracle(random);
          count("interrupt controller's steps held against the oracle", OPERATIONS);
      }
    } catch (error) {
      if (!(error instanceof Disagreement)) throw error;
      return { problem: error.message };
    }
    return null;
  },
};
