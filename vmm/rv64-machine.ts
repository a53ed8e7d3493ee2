// A machine that executes RISC-V kernels: RV64 harts, IMSIC and APLIC, a UART, PCI, optionally a vIOMMU. Put together here; the run
// loop below lets harts execute until the next clock event, then settles the machine.
//
//   hart's load/store outside RAM → Machine.bus → UART, APLIC, IMSIC page, ECAM, BAR, vIOMMU
//   a device's MSI → 4-byte store at an IMSIC page (guest-physical memory) → the hart's interrupt file
//
// Time: `clock` is the machine's; while a hart runs, the core counts it (10 ns an instruction), and every MMIO brings the clock up
// to date first.

import type { GpaPfn } from "../host/base/address.ts";
import type { Clock } from "../host/base/clock.ts";
import { PhysicalMemory } from "../host/base/memory.ts";
import type { AccessSize, MmioPort } from "../host/base/mmio.ts";
import type { Trace } from "../host/base/trace.ts";
import { Machine } from "./machine.ts";
import {
  APLIC_BASE,
  ECAM_BASE,
  ECAM_BUSES,
  MSI_BASE,
  PCI_MEMORY32_BASE,
  PCI_MEMORY32_SIZE,
  PCI_MEMORY64_BASE,
  PCI_MEMORY64_SIZE,
  RAM_BASE,
  UART_BASE,
} from "./memory-map.ts";
import { PciHostBridge } from "./pci/host-bridge.ts";
import { Aplic } from "./platform/aplic.ts";
import type { KernelImage } from "./platform/kernel-image.ts";
import { KernelImageError } from "./platform/kernel-image.ts";
import { aplicRegister, barRegister, ecamRegister, imsicRegister, uartRegister } from "./platform/register-names.ts";
import { type Rv64Viommu, rv64DeviceTree } from "./platform/rv64-device-tree.ts";
import { type ResetKind, Sbi } from "./platform/sbi.ts";
import { Uart8250 } from "./platform/uart-8250.ts";
import { Exit, Rv64Core } from "./vcpu/riscv64/core.ts";
import { ISA_EXTENSIONS } from "./vcpu/riscv64/extensions.ts";

const APLIC_SOURCES = 96;
const UART_SOURCE = 10;
const INTX_SOURCE = 32;
const TIMEBASE_HZ = 10_000_000;
const IMSIC_IDS = 255;
/** Instructions a hart executes before another has its turn, when several have work. */
const TURN = 20_000;
/** The same after it has sent another hart an interrupt, which it is likely to wait for. */
const TURN_AFTER_MESSAGE = 200;
/** Longest slice: the shell looks at wall time and input between slices. */
const LONGEST_SLICE = 10_000_000;
/**
 * What else bounds a slice: turns, accesses outside RAM, SBI calls, and commands of a command queue, thousands of which one store can start. Without
 * it a guest could keep the shell from its deadline and its signals. A count, so that runs repeat.
 */
const WORK_OF_A_SLICE = 500_000;
const WORK_OF_A_CALL = 10;

export interface Rv64MachineOptions {
  /** vmm/vcpu/riscv64/build/hart.wasm, compiled. */
  readonly core: WebAssembly.Module;
  readonly clock: Clock;
  readonly trace: Trace;
  /** Multiple of 2 MiB, up to 2 GiB. */
  readonly memoryBytes: number;
  readonly harts: number;
  /** Most instructions `run` executes in one call. Default 10 million. */
  readonly sliceInstructions?: number;
}

export interface BootOptions {
  readonly kernel: KernelImage;
  readonly initrd: Uint8Array | null;
  readonly bootArguments: string;
  readonly viommus: readonly Rv64Viommu[];
  /** 32 bytes, from the run's seed. */
  readonly seed: Uint8Array;
}

/** Why `run` returned. */
export type Rv64Stop =
  /** The slice is over; call again. */
  | { readonly kind: "slice" }
  /** Every hart waits for an interrupt; nothing happens before `until` (ns; Infinity: never). */
  | { readonly kind: "idle"; readonly until: number }
  | { readonly kind: "off"; readonly reset: ResetKind; readonly failure: boolean }
  /** The machine was stopped (time limit, or on request). */
  | { readonly kind: "stopped" };

export class Rv64Machine {
  readonly machine: Machine;
  readonly core: Rv64Core;
  readonly memory = new PhysicalMemory<GpaPfn>();
  readonly pci = new PciHostBridge(ECAM_BUSES);
  readonly uart = new Uart8250();
  readonly aplic: Aplic;
  readonly sbi: Sbi;
  readonly #clock: Clock;
  readonly #options: Rv64MachineOptions;
  readonly #started: boolean[];
  /** Harts that executed wfi with nothing pending. */
  readonly #waiting: boolean[];
  readonly #slice: number;
  readonly #input: number[] = [];
  #off: Rv64Stop | null = null;
  /** Whose turn it is next, and who executes now (-1: nobody). */
  #hart = 0;
  #running = -1;
  /** Commands that the guest's stores have had executed by its IOMMUs; set by the shell. */
  commandsExecuted: () => number = () => 0;
  #commandsSeen = 0;
  /** What this slice has cost besides instructions, see WORK_OF_A_SLICE. */
  #work = 0;

  constructor(options: Rv64MachineOptions) {
    this.#options = options;
    this.#clock = options.clock;
    this.machine = new Machine(options.clock, options.trace, { take: () => -1 });
    this.core = new Rv64Core({
      module: options.core,
      ramBytes: options.memoryBytes,
      harts: options.harts,
      timebaseFrequency: TIMEBASE_HZ,
      interruptIdentities: IMSIC_IDS,
      mmio: new HartBus(this),
    });
    this.#started = Array.from({ length: options.harts }, () => false);
    this.#waiting = Array.from({ length: options.harts }, () => false);
    this.#slice = options.sliceInstructions ?? LONGEST_SLICE;
    this.memory.addBank((RAM_BASE / 4096) as GpaPfn, this.core.memory.buffer, this.core.ramOffset, options.memoryBytes);
    this.aplic = new Aplic(APLIC_SOURCES, (hart, eiid) => this.raiseIdentity(hart, eiid));
    this.uart.onWire = (asserted) => this.aplic.setWire(UART_SOURCE, asserted);
    this.uart.onOutput = (byte) => this.machine.console(Uint8Array.of(byte));
    this.uart.onRoom = () => this.#feedUart();
    this.sbi = new Sbi({
      core: this.core,
      memory: this.memory,
      started: this.#started,
      console: (bytes) => this.machine.console(bytes),
      consoleRead: (bytes) => this.#takeInput(bytes),
      reset: (reset, failure) => {
        this.#off = { kind: "off", reset, failure };
      },
    });
    const { bus } = this.machine;
    for (let hart = 0; hart < options.harts; hart++) {
      const page = new ImsicPage(this, hart);
      this.memory.addStoreTarget((MSI_BASE / 4096 + hart) as GpaPfn, page);
      bus.claim({
        name: `imsic${hart}`,
        base: MSI_BASE + hart * 4096,
        size: 4096,
        port: page,
        registerName: imsicRegister,
      });
    }
    bus.claim({ name: "aplic", base: APLIC_BASE, size: 0x4000, port: this.aplic, registerName: aplicRegister });
    bus.claim({ name: "uart", base: UART_BASE, size: 0x100, port: this.uart, registerName: uartRegister });
    const ecam = { name: "ecam", base: ECAM_BASE, size: ECAM_BUSES * 0x100000 };
    bus.claim({ ...ecam, port: this.pci.ecam, registerName: ecamRegister });
    const windows = [
      { name: "pci-memory32", base: PCI_MEMORY32_BASE, size: PCI_MEMORY32_SIZE },
      { name: "pci-memory64", base: PCI_MEMORY64_BASE, size: PCI_MEMORY64_SIZE },
    ];
    for (const window of windows) {
      const registerName = (offset: number) => barRegister(this.pci, window.base + offset);
      bus.claim({ ...window, port: this.pci.window(window.base), registerName });
    }
  }

  /** Level of PCI INTx pin 1..4 of a function: wired as the device tree's interrupt-map says. */
  setIntx(routingId: number, pin: number, asserted: boolean): void {
    const slot = (routingId >> 3) & 3;
    this.aplic.setWire(INTX_SOURCE + ((slot + pin - 1) % 4), asserted);
  }

  /**
   * Puts kernel, initrd and device tree into RAM and readies hart 0. Throws KernelImageError if something does not fit. Layout: kernel
   * from RAM base (or where its ELF says), initrd and then the device tree at the end of RAM.
   */
  load(boot: BootOptions): void {
    const { memoryBytes } = this.#options;
    const { kernel, initrd } = boot;
    const end = RAM_BASE + memoryBytes;
    let kernelEnd = RAM_BASE;
    for (const segment of kernel.segments) {
      const address = kernel.relocatable ? RAM_BASE + segment.address : segment.address;
      if (address < RAM_BASE || address + segment.memoryBytes > end) {
        throw new KernelImageError(
          `the kernel needs 0x${address.toString(16)}..0x${(address + segment.memoryBytes).toString(16)}, ` +
            `RAM is 0x${RAM_BASE.toString(16)}..0x${end.toString(16)}`,
        );
      }
      this.core.ram.set(segment.bytes, address - RAM_BASE);
      kernelEnd = Math.max(kernelEnd, address + segment.memoryBytes);
    }
    const treeAt = end - 0x200000;
    const initrdBytes = initrd?.length ?? 0;
    const initrdAt = Math.floor((treeAt - initrdBytes) / 0x200000) * 0x200000;
    if (initrdAt < kernelEnd) throw new KernelImageError("kernel and initrd do not fit into RAM (--memory)");
    if (initrd !== null) this.core.ram.set(initrd, initrdAt - RAM_BASE);
    const tree = rv64DeviceTree({
      harts: this.#options.harts,
      memoryBytes,
      timebaseHz: TIMEBASE_HZ,
      isaExtensions: ISA_EXTENSIONS,
      mmuType: "riscv,sv57",
      bootArguments: boot.bootArguments,
      initrd: initrd === null ? null : { start: initrdAt, end: initrdAt + initrdBytes },
      viommus: boot.viommus,
      aplicSources: APLIC_SOURCES,
      imsicIds: IMSIC_IDS,
      uartSource: UART_SOURCE,
      intxSource: INTX_SOURCE,
      seed: boot.seed,
    });
    this.core.ram.set(tree, treeAt - RAM_BASE);
    const entry = kernel.relocatable ? RAM_BASE + kernel.entry : kernel.entry;
    this.core.start(0, BigInt(entry), BigInt(treeAt));
    this.#started[0] = true;
  }

  /** Console input from outside. */
  type(bytes: Uint8Array): void {
    // What a guest does not read is bounded; typing further is lost, as on a real line.
    for (const byte of bytes) if (this.#input.length < 65536) this.#input.push(byte);
    this.#feedUart();
  }

  /** An MSI for a hart's interrupt file, from another hart, the APLIC or a device. */
  raiseIdentity(hart: number, identity: number): void {
    this.core.raiseIdentity(hart, identity);
    // Whom it wakes shall not wait for the end of a turn that may be a whole slice.
    if (this.#running >= 0 && hart !== this.#running) this.core.limitSlice(TURN_AFTER_MESSAGE);
  }

  /**
   * Executes until something needs the shell: at most one slice. Harts that have work take turns; one that has none is passed over until an
   * interrupt is pending for it. Everything is decided by counts of instructions: the same run every time.
   */
  run(): Rv64Stop {
    const { core, machine } = this;
    const clock = this.#clock;
    this.#work = 0;
    for (let left = this.#slice; left > 0 && this.#work < WORK_OF_A_SLICE; ) {
      machine.settle();
      if (this.#off !== null) return this.#off;
      if (machine.stopping) return { kind: "stopped" };
      core.now = clock.now;
      const hart = this.#nextHart();
      if (hart < 0) return { kind: "idle", until: this.#wakeTime() };
      const before = core.executed;
      this.#running = hart;
      const exit = core.run(hart, Math.min(left, this.#turn(hart)));
      this.#running = -1;
      left -= Math.max(1, core.executed - before);
      this.#work++;
      clock.advanceTo(core.now);
      if (exit === Exit.Sbi) {
        this.sbi.call(hart);
        this.#work += WORK_OF_A_CALL;
      } else if (exit === Exit.Wfi) this.#waiting[hart] = true;
      this.#hart = (hart + 1) % this.#started.length;
    }
    return this.#off ?? { kind: "slice" };
  }

  /** Lets an idle machine's time pass to `until`. */
  skipTo(until: number): void {
    this.#clock.advanceTo(until);
  }

  /** The next hart in turn that has work, -1 if none has. */
  #nextHart(): number {
    const harts = this.#started.length;
    for (let i = 0; i < harts; i++) {
      const hart = (this.#hart + i) % harts;
      if (this.#started[hart] !== true) continue;
      if (this.#waiting[hart] === true && !this.core.interruptPending(hart)) continue;
      this.#waiting[hart] = false;
      return hart;
    }
    return -1;
  }

  /** Instructions until the clock's next event, or until another hart must have its turn. */
  #turn(hart: number): number {
    let until = Math.min(this.#clock.nextDeadline, this.machine.timeLimit);
    let longest = this.#slice;
    for (let other = 0; other < this.#started.length; other++) {
      if (other === hart || this.#started[other] !== true) continue;
      if (this.#waiting[other] !== true) longest = TURN;
      else until = Math.min(until, this.#timer(other));
    }
    const instructions = Math.ceil((until - this.#clock.now) / this.core.nsPerInstruction);
    return Math.max(1, Math.min(instructions, longest));
  }

  /** When something happens again in a machine all of whose harts wait, in ns; Infinity: never. */
  #wakeTime(): number {
    let until = Math.min(this.#clock.nextDeadline, this.machine.timeLimit);
    for (let hart = 0; hart < this.#started.length; hart++) {
      if (this.#started[hart] === true) until = Math.min(until, this.#timer(hart));
    }
    return until;
  }

  /** When the timer of a waiting hart wakes it. One that is due and has not woken it is masked, and never will. */
  #timer(hart: number): number {
    const deadline = this.core.timerDeadline(hart);
    return deadline > this.#clock.now ? deadline : Number.POSITIVE_INFINITY;
  }

  /** Called by HartBus around an access: time is exact, and what falls due or is flagged happens before the hart goes on. */
  beforeAccess(): void {
    this.machine.counters.traps++;
    this.#clock.advanceTo(this.core.now);
  }

  afterAccess(): void {
    const { core } = this;
    const clock = this.#clock;
    this.machine.settle();
    const executed = this.commandsExecuted();
    this.#work += 1 + executed - this.#commandsSeen;
    this.#commandsSeen = executed;
    if (this.machine.stopping || this.#off !== null || this.#work >= WORK_OF_A_SLICE) core.stop();
    // The host's kernel waits for its hardware by letting time pass.
    if (clock.now > core.now) core.now = clock.now;
    const until = Math.ceil((clock.nextDeadline - clock.now) / core.nsPerInstruction);
    if (until < this.#slice) core.limitSlice(Math.max(1, until));
  }

  #feedUart(): void {
    while (this.#input.length > 0 && this.uart.receive(this.#input[0]!)) this.#input.shift();
  }

  #takeInput(bytes: Uint8Array): number {
    const taken = this.#input.splice(0, bytes.length);
    bytes.set(taken);
    return taken.length;
  }
}

/** A hart's loads and stores outside RAM, as traps of the machine. */
class HartBus {
  high = 0;
  readonly #machine: Rv64Machine;

  constructor(machine: Rv64Machine) {
    this.#machine = machine;
  }

  load(address: number, size: AccessSize): number {
    const { machine } = this.#machine;
    const previous = machine.trace.cause;
    this.#machine.beforeAccess();
    const low = machine.access(address, size);
    this.high = machine.high;
    this.#machine.afterAccess();
    machine.trace.leave(previous);
    return low;
  }

  store(address: number, size: AccessSize, low: number, high: number): void {
    const { machine } = this.#machine;
    const previous = machine.trace.cause;
    this.#machine.beforeAccess();
    machine.accessStore(address, size, low, high);
    this.#machine.afterAccess();
    machine.trace.leave(previous);
  }
}

/** One hart's interrupt file as a page: seteipnum_le at offset 0; reads 0 (AIA §3.5). */
class ImsicPage implements MmioPort {
  readonly high = 0;
  readonly #machine: Rv64Machine;
  readonly #hart: number;

  constructor(machine: Rv64Machine, hart: number) {
    this.#machine = machine;
    this.#hart = hart;
  }

  store32(offset: number, value: number): void {
    if (offset === 0) this.#machine.raiseIdentity(this.#hart, value);
  }

  mmioRead(): number {
    return 0;
  }

  mmioWrite(offset: number, size: AccessSize, lo: number, _hi: number): void {
    if (size === 4) this.store32(offset, lo);
  }
}
