// A machine that executes kernels: up to eight CPUs over one RAM, a UART, PCI, vIOMMUs. What is an instruction set's (the CPU core, interrupt
// controllers, firmware calls, the device tree) are its parts (KernelParts); what is here is the same for all: the run loop that lets CPUs
// execute until the next clock event and then settles the machine, turns between CPUs, loading, the console.
//
//   CPU's load/store outside RAM → Machine.bus → UART, interrupt controller, ECAM, BAR, vIOMMU
//   a device's MSI → 4-byte store at the controller's page (guest-physical memory) → pending in the CPU
//
// Time: `clock` is the machine's; while a CPU runs, the core counts it, and every MMIO brings the clock up to date first.

import type { GpaPfn } from "../host/base/address.ts";
import type { Clock } from "../host/base/clock.ts";
import type { PhysicalMemory } from "../host/base/memory.ts";
import { StateError, type Stateful, type StateReader, type StateRecord } from "../host/base/state.ts";
import type { Trace } from "../host/base/trace.ts";
import type { Assignment } from "./assignment.ts";
import { CpuBus, type CpuBusPort } from "./cpu-bus.ts";
import type { DebuggedCpu } from "./gdb/debugged-cpu.ts";
import type { Machine } from "./machine.ts";
import { type IommuWorld, MachineFrame } from "./machine-frame.ts";
import { RAM_BASE, UART_BASE } from "./memory-map.ts";
import type { PciHostBridge, PciPlace } from "./pci/host-bridge.ts";
import type { KernelImage } from "./platform/kernel-image.ts";
import { type ImageBytes, KernelImageError } from "./platform/kernel-image.ts";
import { uartRegister } from "./platform/register-names.ts";
import { Uart8250 } from "./platform/uart-8250.ts";
import type { PlatformDeviceEntry } from "./platform-devices.ts";
import type { CoreOptions, WatchHit, Watchpoint } from "./vcpu/engine/core.ts";
import type { ViommuKind } from "./viommu/kind.ts";
import { DEFAULT_KIND, VIOMMU_KINDS } from "./viommu/kinds.ts";

/** Instructions a CPU executes before another has its turn, when several have work. */
const TURN = 20_000;
/** The same after it has sent another CPU an interrupt, which it is likely to wait for. */
const TURN_AFTER_MESSAGE = 200;
/** Longest slice: the shell looks at wall time and input between slices. */
const LONGEST_SLICE = 10_000_000;
/**
 * What else bounds a slice: turns, accesses outside RAM, firmware calls, and commands of a command queue, thousands of which one store can
 * start. Without it a guest could keep the shell from its deadline and its signals. A count, so that runs repeat.
 */
const WORK_OF_A_SLICE = 500_000;
const WORK_OF_A_CALL = 10;

/** A guest that has had its IOMMUs do so many commands within so many instructions does little but wait for them; one that reads a drive does much else. */
const MANY_COMMANDS = 5000;
const FEW_INSTRUCTIONS = 1000 * MANY_COMMANDS;

const RESETS = ["shutdown", "cold-reboot", "warm-reboot"] as const;
export type ResetKind = (typeof RESETS)[number];

/** The CPUs, as a machine runs them. Virtual time in ns; budgets in instructions. */
export interface CpuCore {
  readonly memory: WebAssembly.Memory;
  /** Where guest RAM stands in `memory`, and its bytes. */
  readonly ramOffset: number;
  readonly ram: Uint8Array;
  now: number;
  readonly executed: number;
  readonly nsPerInstruction: number;
  /** Executes up to `budget` instructions; why it came back is one of KernelParts.exits, or neither (budget used up, stopped). */
  run(cpu: number, budget: number): number;
  /** From within an access outside RAM: ends `run` with it, or shortens it to at most `instructions` more. */
  stop(): void;
  limitSlice(instructions: number): void;
  interruptPending(cpu: number): boolean;
  /** Address of the CPU's next instruction, between runs. */
  programCounter(cpu: number): bigint;
  /** When the CPU's timer is due. */
  timerDeadline(cpu: number): number;
  /** Between runs: where CPUs stop, with KernelParts.exits.debugger (vmm/vcpu/engine/core.ts). */
  setBreakpoints(addresses: readonly bigint[]): void;
  setWatchpoints(watchpoints: readonly Watchpoint[]): void;
  readonly watchHit: WatchHit | null;
  /** Instructions that a CPU has executed, between runs. */
  instructionsOf(cpu: number): number;
}

/** What a machine tells its device tree. */
export interface TreeRequest {
  readonly bootArguments: string;
  readonly initrd: { readonly start: number; readonly end: number } | null;
  /** Kind of the vIOMMUs. */
  readonly kind: ViommuKind;
  readonly viommus: readonly DescribedViommu[];
  /** Devices on no bus. Default none. */
  readonly platformDevices?: readonly PlatformDeviceEntry[];
  /** 32 bytes, deterministic from the run's seed. */
  readonly seed: Uint8Array;
}

/** A vIOMMU as the guest is told of it. */
export interface DescribedViommu {
  /** Guest-physical address of its registers. */
  readonly base: number;
  /** Devices behind it by their requester ids now; not looked at where there is only one vIOMMU: every device is behind that. */
  readonly requesterIds: readonly number[];
  /** Every requester id that no vIOMMU names is behind this one: those of buses that the guest has yet to number. At most one says so. */
  readonly otherIds?: boolean;
  /** Devices behind it that stand behind root ports, on buses that the guest has yet to number. Default none. */
  readonly behindPorts?: readonly PciPlace[];
  /** Its guest has command queues of the hardware's: a node of their own describes them (`PlatformNode.companion`). */
  readonly hardwareQueues?: boolean;
}

/** What an instruction set brings to a machine. */
export interface KernelParts extends Stateful {
  readonly core: CpuCore;
  /** Exits of `core.run` that the machine acts on: the CPU waits for an interrupt; it calls its firmware; it stands where a debugger waits for it. */
  readonly exits: { readonly wait: number; readonly firmware: number; readonly debugger: number };
  /** Serves the call that a CPU has just made of its firmware. */
  firmwareCall(cpu: number): void;
  /** Claims interrupt controllers on bus and memory. */
  claim(machine: Machine, memory: PhysicalMemory<GpaPfn>): void;
  /** The UART's interrupt line. */
  uartWire(asserted: boolean): void;
  /** Level of PCI INTx pin 1..4 of a function: wired as the device tree says. */
  setIntx(routingId: number, pin: number, asserted: boolean): void;
  /** Level of a vIOMMU's own wire; absent: this platform gives vIOMMUs messages only. */
  viommuWire?(index: number, vector: number, asserted: boolean): void;
  /** Level of a platform device's wire, 0 to PLATFORM_WIRES - 1; absent: this platform has none. */
  platformWire?(wire: number, asserted: boolean): void;
  deviceTree(request: TreeRequest): Uint8Array;
  /** The CPUs as a debugger sees them; `load`: the doubleword of RAM at a guest-physical address, null where there is none. */
  debugged(load: (address: bigint) => bigint | null): DebuggedCpu;
  /** Readies the boot CPU at `entry` with the device tree's address, as the instruction set's boot protocol says. */
  start(entry: bigint, tree: bigint): void;
}

/** What parts may use of the machine they are parts of. */
export interface KernelPartsHost {
  readonly bus: CpuBusPort;
  /** Which CPUs run; firmware calls change it. */
  readonly started: boolean[];
  readonly console: (bytes: Uint8Array) => void;
  /** Takes up to `bytes.length` bytes of console input; returns how many. */
  readonly consoleRead: (bytes: Uint8Array) => number;
  readonly reset: (kind: ResetKind, failure: boolean) => void;
  /** A CPU has been sent an interrupt: whoever runs shall not keep it waiting for the end of a turn that may be a whole slice. */
  readonly woken: (cpu: number) => void;
}

export interface KernelMachineOptions {
  readonly clock: Clock;
  readonly trace: Trace;
  /** Multiple of 2 MiB, up to 2 GiB. */
  readonly memoryBytes: number;
  readonly cpus: number;
  /** Most instructions `run` executes in one call. Default 10 million. */
  readonly sliceInstructions?: number;
  /** How the CPUs are executed: faster or slower, the same in everything else. Default the core's own. */
  readonly engine?: Pick<CoreOptions, "translate" | "decodePages">;
}

/** Bytes of a device tree (Linux: MAX_FDT_SIZE), which lies at the end of RAM. */
export const LARGEST_TREE = 0x200000;

export interface BootOptions {
  readonly kernel: KernelImage;
  readonly initrd: ImageBytes | null;
  readonly bootArguments: string;
  readonly viommus: readonly DescribedViommu[];
  /** Devices on no bus. Default none. */
  readonly platformDevices?: readonly PlatformDeviceEntry[];
  /** 32 bytes, from the run's seed. */
  readonly seed: Uint8Array;
  /** Given the flattened device tree that describes the machine: the one that the guest is handed. Default that one. */
  readonly editTree?: (tree: Uint8Array) => Uint8Array;
}

function place(bytes: ImageBytes, ram: Uint8Array, at: number): void {
  if (bytes instanceof Uint8Array) ram.set(bytes, at);
  else bytes.copyTo(ram.subarray(at, at + bytes.length));
}

/** Why `run` returned. */
export type KernelStop =
  /** The slice is over; call again. */
  | { readonly kind: "slice" }
  /** `budget` is used up, or it was paused: the next call goes on with the same slice. */
  | { readonly kind: "held" }
  /** Every CPU waits for an interrupt; nothing happens before `until` (ns; Infinity: never). */
  | { readonly kind: "idle"; readonly until: number }
  | { readonly kind: "off"; readonly reset: ResetKind; readonly failure: boolean }
  /** The machine was stopped (time limit, or on request). */
  | { readonly kind: "stopped" };

export class KernelMachine<Parts extends KernelParts = KernelParts> implements Stateful {
  readonly parts: Parts;
  readonly uart = new Uart8250();
  readonly machine: Machine;
  readonly memory: PhysicalMemory<GpaPfn>;
  readonly pci: PciHostBridge;
  readonly #frame: MachineFrame;
  readonly #clock: Clock;
  readonly #options: KernelMachineOptions;
  readonly #started: boolean[];
  /** CPUs that wait with nothing pending. */
  readonly #waiting: boolean[];
  readonly #slice: number;
  readonly #input: number[] = [];
  #off: Extract<KernelStop, { kind: "off" }> | null = null;
  /** Whose turn it is next, whose it is, and at which counts of executed instructions it began and ends: over once that is reached. */
  #cpu = 0;
  #turnCpu = 0;
  #turnStart = 0;
  #turnEnd = 0;
  /** The CPU before whose next turn the machine pauses; −1: none's. */
  pauseBeforeTurnOf = -1; // not state: a debugger's wish
  #running = -1; // not state: there is state between slices only
  #pausing = false; // not state: a call of run's
  /** Instructions left of a slice that has been cut; 0: the next run begins one. */
  #left = 0;
  #kind: ViommuKind = VIOMMU_KINDS[DEFAULT_KIND]; // not state: wiring
  /** Commands that the guest's stores have had executed by its IOMMUs. */
  commandsExecuted: () => number = () => 0; // not state: wiring
  #commandsSeen = 0;
  /** Called when the guest has had its IOMMUs do MANY_COMMANDS within FEW_INSTRUCTIONS; may be again. */
  onManyCommands: () => void = () => {}; // not state: wiring

  // not state, to the blank line: how fast commands come
  #countedCommands = 0;
  #countedInstructions = 0;

  /** What this slice has cost besides instructions, see WORK_OF_A_SLICE. */
  #work = 0;
  /** A CPU stands where the core's user has asked it to stop; the machine is pausing. */
  onBreak: (cpu: number) => void = () => {}; // not state: wiring

  constructor(options: KernelMachineOptions, makeParts: (host: KernelPartsHost) => Parts) {
    this.#options = options;
    this.#clock = options.clock;
    this.#started = Array.from({ length: options.cpus }, () => false);
    this.#waiting = Array.from({ length: options.cpus }, () => false);
    this.#slice = options.sliceInstructions ?? LONGEST_SLICE;
    const bus = new CpuBus(this);
    this.parts = makeParts({
      bus,
      started: this.#started,
      console: (bytes) => this.machine.console(bytes),
      consoleRead: (bytes) => this.#takeInput(bytes),
      reset: (reset, failure) => {
        this.#off = { kind: "off", reset, failure };
      },
      woken: (cpu) => {
        if (this.#running >= 0 && cpu !== this.#running) this.#shortenTurn(TURN_AFTER_MESSAGE);
      },
    });
    const { core } = this.parts;
    this.#frame = new MachineFrame({
      clock: options.clock,
      trace: options.trace,
      ram: { buffer: core.memory.buffer, offset: core.ramOffset, length: options.memoryBytes },
      interrupts: { take: () => -1 },
      namesRegisters: true,
    });
    this.machine = this.#frame.machine;
    this.memory = this.#frame.memory;
    this.pci = this.#frame.pci;
    this.uart.onWire = (asserted) => this.parts.uartWire(asserted);
    this.uart.onOutput = (byte) => this.machine.console(Uint8Array.of(byte));
    this.uart.onRoom = () => this.#feedUart();
    this.machine.bus.claim({ name: "uart", base: UART_BASE, size: 0x100, port: this.uart, registerName: uartRegister });
    this.parts.claim(this.machine, this.memory);
  }

  /** Puts the machine's IOMMU world together. Throws HostRefusal if the host does not take guest RAM. */
  iommuWorld(world: IommuWorld): Assignment {
    const { parts } = this;
    const configuration =
      parts.viommuWire === undefined ? { ...world.configuration, interrupts: "msi" as const } : world.configuration;
    this.#kind = world.kind;
    const assignment = this.#frame.iommuWorld(
      {
        viommu: (index, vector, asserted) => parts.viommuWire?.(index, vector, asserted),
        intx: (routingId, pin, asserted) => parts.setIntx(routingId, pin, asserted),
        ...(parts.platformWire === undefined
          ? {}
          : { platform: (wire: number, asserted: boolean) => parts.platformWire?.(wire, asserted) }),
      },
      { ...world, configuration },
    );
    this.commandsExecuted = () => {
      let sum = 0;
      for (const { viommu } of assignment.viommus) sum += viommu.commandsExecuted;
      return sum;
    };
    return assignment;
  }

  /**
   * Puts kernel, initrd and device tree into RAM and readies the boot CPU. Throws KernelImageError if something does not fit. Layout: kernel
   * from RAM base (or where its ELF says), initrd and then the device tree at the end of RAM.
   */
  load(boot: BootOptions): void {
    const { memoryBytes } = this.#options;
    const { core } = this.parts;
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
      place(segment.bytes, core.ram, address - RAM_BASE);
      kernelEnd = Math.max(kernelEnd, address + segment.memoryBytes);
    }
    const treeAt = end - LARGEST_TREE;
    const initrdBytes = initrd?.length ?? 0;
    const initrdAt = Math.floor((treeAt - initrdBytes) / 0x200000) * 0x200000;
    if (initrdAt < kernelEnd) throw new KernelImageError("kernel and initrd do not fit into RAM (--memory)");
    if (initrd !== null) place(initrd, core.ram, initrdAt - RAM_BASE);
    const described = this.parts.deviceTree({
      bootArguments: boot.bootArguments,
      initrd: initrd === null ? null : { start: initrdAt, end: initrdAt + initrdBytes },
      kind: this.#kind,
      viommus: boot.viommus,
      platformDevices: boot.platformDevices ?? [],
      seed: boot.seed,
    });
    const tree = boot.editTree?.(described) ?? described;
    if (tree.length > LARGEST_TREE) throw new KernelImageError("the device tree is larger than 2 MiB");
    core.ram.set(tree, treeAt - RAM_BASE);
    const entry = kernel.relocatable ? RAM_BASE + kernel.entry : kernel.entry;
    this.parts.start(BigInt(entry), BigInt(treeAt));
    this.#started[0] = true;
  }

  /** Console input from outside. */
  type(bytes: Uint8Array): void {
    // What a guest does not read is bounded; typing further is lost, as on a real line.
    for (const byte of bytes) if (this.#input.length < 65536) this.#input.push(byte);
    this.#feedUart();
  }

  /**
   * Executes until something needs the shell: at most one slice, or `budget` instructions of one. CPUs that have work take turns; one that has none is
   * passed over until an interrupt is pending for it. Everything is decided by counts of instructions; a turn goes on where a slice has cut it, and a
   * slice where a budget, a pause or a breakpoint has: the same run every time, in whatever pieces, and the shell is asked at the same places.
   */
  run(budget = Number.POSITIVE_INFINITY): KernelStop {
    const { machine } = this;
    const { core, exits } = this.parts;
    const clock = this.#clock;
    if (this.#left <= 0) {
      this.#left = this.#slice;
      this.#work = 0;
    }
    this.#pausing = false;
    for (let allowed = budget; this.#left > 0 && this.#work < WORK_OF_A_SLICE; ) {
      if (allowed <= 0 || this.#pausing) return { kind: "held" };
      machine.settle();
      if (this.#off !== null) return this.#off;
      if (machine.stopping) return { kind: "stopped" };
      if (this.#pausing) return { kind: "held" };
      core.now = clock.now;
      const before = core.executed;
      if (before >= this.#turnEnd && !this.#beginTurn()) {
        this.#left = 0;
        return { kind: "idle", until: this.#wakeTime() };
      }
      if (this.pauseBeforeTurnOf === this.#turnCpu) {
        this.pauseBeforeTurnOf = -1;
        this.onBreak(this.#turnCpu);
        return { kind: "held" };
      }
      const cpu = this.#turnCpu;
      this.#running = cpu;
      const longest = Math.min(this.#left, this.#turnEnd - before);
      const exit = core.run(cpu, Math.min(longest, allowed));
      this.#running = -1;
      clock.advanceTo(core.now);
      const executed = core.executed - before;
      allowed -= executed;
      if (exit === exits.debugger) {
        this.#left -= executed;
        this.#pausing = true;
        this.onBreak(cpu);
        continue;
      }
      this.#left -= Math.max(1, executed);
      // What has only been cut in two is no more work.
      const goesOn = core.executed < this.#turnEnd && (this.#pausing || (allowed <= 0 && executed < longest));
      if (exit === exits.firmware) {
        this.#turnEnd = 0;
        this.parts.firmwareCall(cpu);
        this.#work += 1 + WORK_OF_A_CALL;
      } else if (exit === exits.wait) {
        this.#turnEnd = 0;
        this.#waiting[cpu] = true;
        this.#work++;
      } else if (!goesOn) this.#work++;
    }
    this.#left = 0;
    return this.#off ?? { kind: "slice" };
  }

  /** From within `run`: it returns after the instruction that is being executed. */
  pause(): void {
    this.#pausing = true;
    if (this.#running >= 0) this.parts.core.stop();
  }

  /** The CPUs as they stand between two runs. */
  get cpus(): readonly { readonly cpu: number; readonly state: "runs" | "waits" | "off"; readonly pc: bigint }[] {
    return this.#started.map((started, cpu) => ({
      cpu,
      state: !started ? "off" : this.#waiting[cpu] === true ? "waits" : "runs",
      pc: this.parts.core.programCounter(cpu),
    }));
  }

  /** Whose turn it is: whose was the last instruction, and whose is the next one unless the turn has ended. By counts of executed instructions. */
  get turn(): { readonly cpu: number; readonly start: number; readonly end: number } {
    return { cpu: this.#turnCpu, start: this.#turnStart, end: this.#turnEnd };
  }

  /** Lets an idle machine's time pass to `until`. */
  skipTo(until: number): void {
    this.#clock.advanceTo(until);
  }

  /** Gives the next CPU that has work its turn; false if none has. */
  #beginTurn(): boolean {
    const cpu = this.#nextCpu();
    if (cpu < 0) return false;
    this.#turnCpu = cpu;
    this.#cpu = (cpu + 1) % this.#started.length;
    this.#turnStart = this.parts.core.executed;
    this.#turnEnd = this.#turnStart + this.#turn(cpu);
    return true;
  }

  /** Ends the turn of the CPU that executes after at most `instructions` more. */
  #shortenTurn(instructions: number): void {
    const { core } = this.parts;
    this.#turnEnd = Math.min(this.#turnEnd, core.executed + instructions);
    core.limitSlice(instructions);
  }

  /** The next CPU in turn that has work, -1 if none has. */
  #nextCpu(): number {
    const cpus = this.#started.length;
    for (let i = 0; i < cpus; i++) {
      const cpu = (this.#cpu + i) % cpus;
      if (this.#started[cpu] !== true) continue;
      if (this.#waiting[cpu] === true && !this.parts.core.interruptPending(cpu)) continue;
      this.#waiting[cpu] = false;
      return cpu;
    }
    return -1;
  }

  /** Instructions until the clock's next event, or until another CPU must have its turn. */
  #turn(cpu: number): number {
    let until = Math.min(this.#clock.nextDeadline, this.machine.timeLimit);
    let longest = LONGEST_SLICE;
    for (let other = 0; other < this.#started.length; other++) {
      if (other === cpu || this.#started[other] !== true) continue;
      if (this.#waiting[other] !== true) longest = TURN;
      else until = Math.min(until, this.#timer(other));
    }
    const instructions = Math.ceil((until - this.#clock.now) / this.parts.core.nsPerInstruction);
    return Math.max(1, Math.min(instructions, longest));
  }

  /** When something happens again in a machine all of whose CPUs wait, in ns; Infinity: never. */
  #wakeTime(): number {
    let until = Math.min(this.#clock.nextDeadline, this.machine.timeLimit);
    for (let cpu = 0; cpu < this.#started.length; cpu++) {
      if (this.#started[cpu] === true) until = Math.min(until, this.#timer(cpu));
    }
    return until;
  }

  /** When the timer of a waiting CPU wakes it. One that is due and has not woken it is masked, and never will. */
  #timer(cpu: number): number {
    const deadline = this.parts.core.timerDeadline(cpu);
    return deadline > this.#clock.now ? deadline : Number.POSITIVE_INFINITY;
  }

  /** Called by CpuBus around an access: time is exact, and what falls due or is flagged happens before the CPU goes on. Returns the CPU's time. */
  beforeAccess(): number {
    this.machine.counters.traps++;
    const { now } = this.parts.core;
    this.#clock.advanceTo(now);
    return now;
  }

  /** `before`: the CPU's time, which stands still meanwhile. */
  afterAccess(before: number): void {
    const clock = this.#clock;
    this.machine.settle();
    const executed = this.commandsExecuted();
    this.#work += 1 + executed - this.#commandsSeen;
    this.#commandsSeen = executed;
    if (executed - this.#countedCommands >= MANY_COMMANDS) this.#countCommands(executed);
    const { core } = this.parts;
    if (this.machine.stopping || this.#off !== null || this.#work >= WORK_OF_A_SLICE) core.stop();
    // The host's kernel waits for its hardware by letting time pass.
    if (clock.now > before) core.now = clock.now;
    const { nextDeadline } = clock;
    if (nextDeadline === Number.POSITIVE_INFINITY) return;
    const until = Math.ceil((nextDeadline - clock.now) / core.nsPerInstruction);
    if (until < LONGEST_SLICE) this.#shortenTurn(Math.max(1, until));
  }

  #countCommands(executed: number): void {
    const instructions = this.parts.core.executed;
    if (instructions - this.#countedInstructions < FEW_INSTRUCTIONS) this.onManyCommands();
    this.#countedCommands = executed;
    this.#countedInstructions = instructions;
  }

  #feedUart(): void {
    while (this.#input.length > 0 && this.uart.receive(this.#input[0]!)) this.#input.shift();
  }

  #takeInput(bytes: Uint8Array): number {
    const taken = this.#input.splice(0, bytes.length);
    bytes.set(taken);
    return taken.length;
  }

  /** As it stands between two runs. */
  saveState(): StateRecord {
    const off = this.#off;
    return {
      started: this.#started.slice(),
      waiting: this.#waiting.slice(),
      input: this.#input.slice(),
      off: off === null ? null : { reset: off.reset, failure: off.failure },
      cpu: this.#cpu,
      turnCpu: this.#turnCpu,
      turnStart: this.#turnStart,
      turnEnd: this.#turnEnd,
      commandsSeen: this.#commandsSeen,
      left: this.#left,
      work: this.#work,
    };
  }

  restoreState(state: StateReader): void {
    const flags = (name: string, into: boolean[]): void => {
      const values = state.list(name);
      if (values.length !== into.length || !values.every((value) => typeof value === "boolean")) {
        state.fail(name, `is no list of ${into.length} truth values`);
      }
      into.splice(0, into.length, ...(values as readonly boolean[]));
    };
    flags("started", this.#started);
    flags("waiting", this.#waiting);
    this.#input.splice(0, this.#input.length, ...state.numberList("input"));
    this.#off = state.optional("off", (reader, name) => {
      const off = reader.record(name);
      const reset = RESETS.find((kind) => kind === off.text("reset"));
      if (reset === undefined) throw new StateError(`${off.path}: reset is none`);
      return { kind: "off" as const, reset, failure: off.boolean("failure") };
    });
    this.#cpu = state.number("cpu") % this.#started.length;
    this.#turnCpu = state.number("turnCpu") % this.#started.length;
    this.#turnStart = state.number("turnStart");
    this.#turnEnd = state.number("turnEnd");
    this.#commandsSeen = state.number("commandsSeen");
    this.#left = Math.min(state.number("left"), this.#slice);
    this.#work = state.number("work");
  }

  *stateParts(): Generator<readonly [string, Stateful]> {
    yield ["frame", this.#frame];
    yield ["cpu", this.parts];
    yield ["uart", this.uart];
  }
}
