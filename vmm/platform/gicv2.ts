// The GICv2 of AArch64 machines (ARM IHI 0048B): one distributor for wires and messages, one CPU interface a CPU. No security extensions, no virtual
// interface. What is banked by CPU (SGIs 0–15, PPIs 16–31, the interfaces) answers for the CPU that executes.
//
//   wire, message → pending & enabled & targeted & above the priority mask and the running priority → the CPU's IRQ → IAR … EOIR
//
// The virtual timer's PPI is the core's to time: the core is told whether it would be signalled, and asked for its level when it matters.

import type { AccessSize, MmioPort } from "../../host/base/mmio.ts";
import { bytesOf, type Stateful, type StateReader, type StateRecord } from "../../host/base/state.ts";

/** Interrupt number of the virtual timer (PPI 11). */
export const VIRTUAL_TIMER = 27;
const SPURIOUS = 1023;
const IDLE = 0x100;

export interface GicPorts {
  /** The CPU whose access this is. */
  readonly running: () => number;
  /** What the CPU interface signals: the timer's interrupt aside, and whether that would be signalled when the timer fires. */
  readonly signal: (cpu: number, irq: boolean, timer: boolean) => void;
  /** Level of the CPU's virtual timer now. */
  readonly timerLevel: (cpu: number) => boolean;
}

/** Offsets of GICD_ register arrays, one bit an interrupt. */
const IGROUPR = 0x080;
const ISENABLER = 0x100;
const ICENABLER = 0x180;
const ISPENDR = 0x200;
const ICPENDR = 0x280;
const ISACTIVER = 0x300;
const ICACTIVER = 0x380;
const IPRIORITYR = 0x400;
const ITARGETSR = 0x800;
const ICFGR = 0xc00;
const SGIR = 0xf00;
const CPENDSGIR = 0xf10;
const SPENDSGIR = 0xf20;

export class GicV2 implements Stateful {
  readonly distributor: MmioPort = new DistributorPort(this);
  readonly cpuInterface: MmioPort = new CpuInterfacePort(this);
  readonly #ports: GicPorts; // not state: wiring
  readonly #cpus: number;
  readonly #lines: number;
  #enabled = false;
  // by interrupt: SGIs and PPIs at cpu × 32 + id, SPIs behind them
  readonly #enable: Uint8Array;
  /** Those that any CPU has enabled, in order: few of many. null: since changed. */
  #enabledIds: number[] | null = null; // not state: the enable bits say it
  /** Pending latched: an edge, a message, a write of ISPENDR. SGIs: a bit for each CPU that sent it. */
  readonly #pending: Uint8Array;
  readonly #level: Uint8Array;
  readonly #active: Uint8Array;
  readonly #priority: Uint8Array;
  readonly #edge: Uint8Array;
  readonly #targets: Uint8Array;
  // by CPU
  readonly #control: Uint16Array;
  readonly #mask: Uint8Array;
  readonly #binaryPoint: Uint8Array;
  /** Running priorities, innermost last; IDLE is the empty stack. */
  readonly #running: number[][];

  /** `interrupts`: a multiple of 32 up to 1,020, the first 32 of them banked. */
  constructor(cpus: number, interrupts: number, ports: GicPorts) {
    this.#cpus = cpus;
    this.#lines = interrupts;
    this.#ports = ports;
    const count = cpus * 32 + interrupts - 32;
    this.#enable = new Uint8Array(count);
    this.#pending = new Uint8Array(count);
    this.#level = new Uint8Array(count);
    this.#active = new Uint8Array(count);
    this.#priority = new Uint8Array(count);
    this.#edge = new Uint8Array(count);
    this.#targets = new Uint8Array(count);
    this.#control = new Uint16Array(cpus);
    this.#mask = new Uint8Array(cpus);
    this.#binaryPoint = new Uint8Array(cpus);
    this.#running = Array.from({ length: cpus }, () => []);
    for (let cpu = 0; cpu < cpus; cpu++) {
      for (let id = 0; id < 16; id++) {
        this.#enable[cpu * 32 + id] = 1;
        this.#edge[cpu * 32 + id] = 1;
      }
    }
  }

  /** Level of wire `id`, an SPI. */
  setWire(id: number, asserted: boolean): void {
    if (id < 32 || id >= this.#lines) return;
    const at = this.#at(0, id);
    const rises = asserted && this.#level[at] === 0;
    this.#level[at] = asserted ? 1 : 0;
    if (rises && this.#edge[at] === 1) this.#pending[at] = 1;
    this.#signalTargets(at);
  }

  /** A pulse on `id`, an SPI: what a message is. */
  pulse(id: number): void {
    if (id < 32 || id >= this.#lines) return;
    this.#pending[this.#at(0, id)] = 1;
    this.#signalTargets(this.#at(0, id));
  }

  // --- distributor ---

  readByte(offset: number): number {
    const cpu = this.#ports.running();
    if (offset < 0x10) return (this.#distributorHead(offset & ~3) >>> ((offset & 3) * 8)) & 0xff;
    const bits = bitArray(offset);
    if (bits !== 0) return this.#bits(cpu, bits, (offset & 0x7f) * 8);
    if (offset >= IPRIORITYR && offset < ITARGETSR) {
      const id = offset - IPRIORITYR;
      return id < this.#lines ? this.#priority[this.#at(cpu, id)]! : 0;
    }
    if (offset >= ITARGETSR && offset < ICFGR) {
      const id = offset - ITARGETSR;
      if (id >= this.#lines || this.#cpus === 1) return 0; // §4.3.12: RAZ with one CPU
      return id < 32 ? 1 << cpu : this.#targets[this.#at(cpu, id)]!;
    }
    if (offset >= ICFGR && offset < 0xd00) {
      let byte = 0;
      for (let i = 0; i < 4; i++) {
        const id = (offset - ICFGR) * 4 + i;
        if (id < this.#lines && this.#edge[this.#at(cpu, id)] === 1) byte |= 2 << (2 * i);
      }
      return byte;
    }
    if (offset >= CPENDSGIR && offset < 0xf30) return this.#pending[this.#at(cpu, offset & 15)]!;
    return offset === 0xfe8 ? 0x2b : 0; // ICPIDR2: architecture version 2
  }

  /** Behind the last byte of a store `settle` signals what has changed. */
  writeByte(offset: number, value: number): void {
    const cpu = this.#ports.running();
    const bits = bitArray(offset);
    if (offset === 0) this.#enabled = (value & 1) === 1;
    else if (bits !== 0) {
      for (let i = 0; i < 8; i++) if ((value >> i) & 1) this.#writeBit(cpu, bits, (offset & 0x7f) * 8 + i);
    } else if (offset >= IPRIORITYR && offset < ITARGETSR) {
      const id = offset - IPRIORITYR;
      if (id < this.#lines) this.#priority[this.#at(cpu, id)] = value;
    } else if (offset >= ITARGETSR && offset < ICFGR) {
      const id = offset - ITARGETSR;
      if (id >= 32 && id < this.#lines) this.#targets[this.#at(cpu, id)] = value & ((1 << this.#cpus) - 1);
    } else if (offset >= ICFGR && offset < 0xd00) {
      for (let i = 0; i < 4; i++) {
        const id = (offset - ICFGR) * 4 + i;
        if (id >= 32 && id < this.#lines) this.#edge[this.#at(cpu, id)] = (value >> (2 * i + 1)) & 1;
      }
    } else if (offset >= CPENDSGIR && offset < 0xf30) {
      const at = this.#at(cpu, offset & 15);
      this.#pending[at] = offset < SPENDSGIR ? this.#pending[at]! & ~value : this.#pending[at]! | value;
    }
  }

  settle(): void {
    for (let cpu = 0; cpu < this.#cpus; cpu++) this.#signal(cpu);
  }

  /** GICD_SGIR: an interrupt to CPUs of a list, to all others, or to oneself. */
  writeSgir(value: number): void {
    const cpu = this.#ports.running();
    const list = (value >>> 16) & 0xff;
    const filter = (value >>> 24) & 3;
    for (let target = 0; target < this.#cpus; target++) {
      const meant = filter === 0 ? ((list >> target) & 1) === 1 : filter === 1 ? target !== cpu : target === cpu;
      if (filter === 3 || !meant) continue;
      const at = this.#at(target, value & 15);
      this.#pending[at] = this.#pending[at]! | (1 << cpu);
      this.#signal(target);
    }
  }

  #distributorHead(offset: number): number {
    switch (offset) {
      case 0:
        return this.#enabled ? 1 : 0;
      case 4:
        return (this.#lines / 32 - 1) | ((this.#cpus - 1) << 5);
      case 8:
        return 0x0200143b; // IIDR
      default:
        return 0;
    }
  }

  #bits(cpu: number, array: number, first: number): number {
    let byte = 0;
    for (let i = 0; i < 8 && first + i < this.#lines; i++) {
      const id = first + i;
      const at = this.#at(cpu, id);
      let bit = 0;
      if (array === ISENABLER || array === ICENABLER) bit = this.#enable[at]!;
      else if (array === ISPENDR || array === ICPENDR) bit = this.#isPending(cpu, id) ? 1 : 0;
      else if (array === ISACTIVER || array === ICACTIVER) bit = this.#active[at]!;
      byte |= bit << i;
    }
    return byte;
  }

  #writeBit(cpu: number, array: number, id: number): void {
    if (id >= this.#lines) return;
    const at = this.#at(cpu, id);
    switch (array) {
      case ISENABLER:
        this.#enable[at] = 1;
        this.#enabledIds = null;
        break;
      case ICENABLER:
        if (id >= 16) this.#enable[at] = 0;
        this.#enabledIds = null;
        break;
      case ISPENDR:
        if (id >= 16) this.#pending[at] = 1;
        break;
      case ICPENDR:
        if (id >= 16) this.#pending[at] = 0;
        break;
      case ISACTIVER:
        this.#active[at] = 1;
        break;
      case ICACTIVER:
        this.#active[at] = 0;
        break;
    }
  }

  // --- CPU interface ---

  readInterface(offset: number): number {
    const cpu = this.#ports.running();
    switch (offset) {
      case 0x00:
        return this.#control[cpu]!;
      case 0x04:
        return this.#mask[cpu]!;
      case 0x08:
        return this.#binaryPoint[cpu]!;
      case 0x0c:
        return this.#acknowledge(cpu);
      case 0x14:
        return Math.min(this.#runningPriority(cpu), 0xff); // §4.4.6: 0xff is the idle priority
      case 0x18: {
        const id = this.#highest(cpu, true);
        return id < 16 ? id | (this.#sender(cpu, id) << 10) : id;
      }
      case 0xfc:
        return 0x0202143b; // IIDR: architecture version 2
      default:
        return 0;
    }
  }

  writeInterface(offset: number, value: number): void {
    const cpu = this.#ports.running();
    switch (offset) {
      case 0x00:
        this.#control[cpu] = value & 0x201;
        break;
      case 0x04:
        this.#mask[cpu] = value & 0xff;
        break;
      case 0x08:
        this.#binaryPoint[cpu] = value & 7;
        break;
      case 0x10:
        this.#endOfInterrupt(cpu, value & 0x3ff);
        break;
      case 0x1000:
        if (this.#control[cpu]! & 0x200) this.#deactivate(cpu, value & 0x3ff);
        break;
      default:
        return;
    }
    this.#signal(cpu);
  }

  /** GICC_IAR: the interrupt becomes active, and its priority the running one. */
  #acknowledge(cpu: number): number {
    const id = this.#highest(cpu, true);
    if (id === SPURIOUS) return id;
    const at = this.#at(cpu, id);
    let answer = id;
    if (id < 16) {
      const sender = this.#sender(cpu, id);
      answer |= sender << 10;
      this.#pending[at] = this.#pending[at]! & ~(1 << sender);
    } else this.#pending[at] = 0;
    this.#active[at] = 1;
    this.#running[cpu]!.push(this.#priority[at]!);
    if (id >= 32) this.#signalTargets(at);
    this.#signal(cpu);
    return answer;
  }

  #endOfInterrupt(cpu: number, id: number): void {
    if (id >= this.#lines) return;
    this.#running[cpu]!.pop();
    if (!(this.#control[cpu]! & 0x200)) this.#deactivate(cpu, id);
  }

  #deactivate(cpu: number, id: number): void {
    if (id >= this.#lines) return;
    const at = this.#at(cpu, id);
    this.#active[at] = 0;
    if (id >= 32) this.#signalTargets(at);
  }

  // --- what is signalled ---

  #at(cpu: number, id: number): number {
    return id < 32 ? cpu * 32 + id : this.#cpus * 32 + id - 32;
  }

  #sender(cpu: number, id: number): number {
    return 31 - Math.clz32(this.#pending[this.#at(cpu, id)]! & -this.#pending[this.#at(cpu, id)]!);
  }

  #isPending(cpu: number, id: number): boolean {
    const at = this.#at(cpu, id);
    if (this.#pending[at] !== 0) return true;
    if (this.#edge[at] === 1) return false;
    return id === VIRTUAL_TIMER ? this.#ports.timerLevel(cpu) : this.#level[at] === 1;
  }

  #runningPriority(cpu: number): number {
    return this.#running[cpu]!.at(-1) ?? IDLE;
  }

  /** True if an interrupt of this priority preempts what runs (§3.3.3: by group priority) and passes the mask. */
  #passes(cpu: number, priority: number): boolean {
    if (priority >= this.#mask[cpu]!) return false;
    const group = ~((2 << this.#binaryPoint[cpu]!) - 1);
    const running = this.#runningPriority(cpu);
    return running === IDLE || (priority & group) < (running & group);
  }

  /** The interrupt that is signalled to the CPU, SPURIOUS if none. `timer`: the virtual timer's level counts, too. */
  #highest(cpu: number, timer: boolean): number {
    if (!this.#enabled || !(this.#control[cpu]! & 1)) return SPURIOUS;
    let best = SPURIOUS;
    let bestPriority = IDLE;
    this.#enabledIds ??= this.#listEnabled();
    for (const id of this.#enabledIds) {
      const at = this.#at(cpu, id);
      if (this.#enable[at] === 0 || this.#active[at] === 1) continue;
      const priority = this.#priority[at]!;
      // a timer interrupt that software made pending (GICD_ISPENDR) is no matter of the timer's level
      const mayCount = id !== VIRTUAL_TIMER || timer || this.#pending[at] !== 0;
      if (priority >= bestPriority || !mayCount || !this.#isPending(cpu, id)) continue;
      if (id >= 32 && this.#cpus > 1 && !((this.#targets[at]! >> cpu) & 1)) continue;
      best = id;
      bestPriority = priority;
    }
    return this.#passes(cpu, bestPriority) ? best : SPURIOUS;
  }

  #listEnabled(): number[] {
    const list: number[] = [];
    for (let id = 0; id < this.#lines; id++) {
      let any = this.#enable[this.#at(0, id)]!;
      for (let cpu = 1; cpu < this.#cpus && id < 32; cpu++) any |= this.#enable[this.#at(cpu, id)]!;
      if (any !== 0) list.push(id);
    }
    return list;
  }

  #signal(cpu: number): void {
    const timer = this.#at(cpu, VIRTUAL_TIMER);
    const routed =
      this.#enabled &&
      (this.#control[cpu]! & 1) === 1 &&
      this.#enable[timer] === 1 &&
      this.#active[timer] === 0 &&
      this.#passes(cpu, this.#priority[timer]!);
    this.#ports.signal(cpu, this.#highest(cpu, false) !== SPURIOUS, routed);
  }

  #signalTargets(at: number): void {
    for (let cpu = 0; cpu < this.#cpus; cpu++) {
      if (this.#cpus === 1 || ((this.#targets[at]! >> cpu) & 1) === 1) this.#signal(cpu);
    }
  }

  saveState(): StateRecord {
    return {
      enabled: this.#enabled,
      enable: bytesOf(this.#enable),
      pending: bytesOf(this.#pending),
      level: bytesOf(this.#level),
      active: bytesOf(this.#active),
      priority: bytesOf(this.#priority),
      edge: bytesOf(this.#edge),
      targets: bytesOf(this.#targets),
      control: [...this.#control],
      mask: [...this.#mask],
      binaryPoint: [...this.#binaryPoint],
      running: this.#running.map((stack) => [...stack]),
    };
  }

  restoreState(state: StateReader): void {
    this.#enabled = state.boolean("enabled");
    const arrays = [
      ["enable", this.#enable],
      ["pending", this.#pending],
      ["level", this.#level],
      ["active", this.#active],
      ["priority", this.#priority],
      ["edge", this.#edge],
      ["targets", this.#targets],
    ] as const;
    for (const [name, into] of arrays) {
      const bytes = state.bytes(name);
      if (bytes.length !== into.length) state.fail(name, `is not ${into.length} bytes`);
      into.set(bytes);
    }
    this.#enabledIds = null;
    const words = [
      ["control", this.#control],
      ["mask", this.#mask],
      ["binaryPoint", this.#binaryPoint],
    ] as const;
    for (const [name, into] of words) into.set(state.numberList(name).slice(0, into.length));
    const stacks = state.list("running");
    for (let cpu = 0; cpu < this.#cpus; cpu++) {
      const stack = stacks[cpu];
      if (!Array.isArray(stack)) state.fail("running", "is no list of priorities a CPU");
      this.#running[cpu] = (stack as unknown[]).map((it) => Number(it) & 0x1ff);
    }
  }
}

/** The bit array that `offset` lies in, by its base; 0 if in none. */
function bitArray(offset: number): number {
  return offset >= IGROUPR && offset < IPRIORITYR ? offset & ~0x7f : 0;
}

/** GICD: byte arrays are read and written by bytes and words, the rest by words (§4.1.4). */
class DistributorPort implements MmioPort {
  readonly high = 0;
  readonly #gic: GicV2;

  constructor(gic: GicV2) {
    this.#gic = gic;
  }

  mmioRead(offset: number, size: AccessSize): number {
    if (size === 8) return 0;
    let value = 0;
    for (let i = 0; i < size; i++) value |= this.#gic.readByte(offset + i) << (8 * i);
    return value >>> 0;
  }

  mmioWrite(offset: number, size: AccessSize, lo: number, _hi: number): void {
    if (size === 8) return;
    if (offset === SGIR) {
      this.#gic.writeSgir(lo);
      return;
    }
    for (let i = 0; i < size; i++) this.#gic.writeByte(offset + i, (lo >>> (8 * i)) & 0xff);
    this.#gic.settle();
  }
}

class CpuInterfacePort implements MmioPort {
  readonly high = 0;
  readonly #gic: GicV2;

  constructor(gic: GicV2) {
    this.#gic = gic;
  }

  mmioRead(offset: number, size: AccessSize): number {
    return size === 4 ? this.#gic.readInterface(offset) : 0;
  }

  mmioWrite(offset: number, size: AccessSize, lo: number, _hi: number): void {
    if (size === 4) this.#gic.writeInterface(offset, lo);
  }
}
