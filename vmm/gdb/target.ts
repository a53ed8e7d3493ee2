// A kernel machine as a debugger uses it: registers and memory while it stands, breakpoints and watchpoints, and running it by the control that a monitor
// uses, too (vmm/monitor/run-control.ts). The schedule of CPUs stays what it is: stepping one lets the others run until its turn comes, as they would.
//
// A watchpoint is in RAM: a virtual address is resolved when it is set. CPUs stop before they touch it; a device's DMA has touched it when the machine stops.

import type { Trace, TracedEvent, TraceSink } from "../../host/base/trace.ts";
import type { KernelMachine } from "../kernel-machine.ts";
import { RAM_BASE } from "../memory-map.ts";
import type { RunControl, Stop, Waiter } from "../monitor/run-control.ts";
import type { WatchHit, Watchpoint } from "../vcpu/engine/core.ts";
import { type DebuggedCpu, type Register, registersOf } from "./debugged-cpu.ts";

export const MOST_BREAKPOINTS = 256;
export const MOST_WATCHPOINTS = 32;

export type WatchKind = "watch" | "rwatch" | "awatch";

/** Why the machine stands, for a debugger. */
export interface Halt {
  readonly cpu: number;
  readonly why: "trap" | "interrupt" | "begin" | "end";
  /** What was touched, as it was asked for. */
  readonly watch?: { readonly kind: WatchKind; readonly address: bigint };
  /** For people: the device that touched it. */
  readonly text?: string;
}

/** A replay's way through its run, by instructions that all CPUs have executed. */
export interface Past {
  readonly here: { readonly instructions: number };
  /** Has the machine, or another in its place, stand where so many have been executed; tells `waiter` then. */
  toInstruction(instructions: number, waiter: Waiter): void;
  /** A place before so many from which the way there is short; 0: the beginning. */
  before(instructions: number): number;
}

export interface HeldByDebugger {
  readonly machine: KernelMachine;
  /** Guest-physical address of a host-physical one that is RAM of this machine; −1 for others. */
  readonly guestAddress: (spa: bigint) => number;
}

/** What holds the machine, and where it stands in a recording. */
export interface TargetParts {
  readonly control: RunControl;
  readonly trace: Trace;
  /** null: what it did is done. Of a replay: nothing is written. */
  readonly past: Past | null;
}

interface Watched {
  readonly kind: WatchKind;
  /** As it was asked for; in the space that it was asked for in. */
  readonly address: bigint;
  readonly bytes: number;
  readonly pieces: readonly Watchpoint[];
}

const PAGE = 4096;

// Not state: a debugger is outside of the machine.
export class GdbTarget implements TraceSink {
  /** Whether memory is guest-physical. */
  physical = false;
  readonly #parts: TargetParts;
  #held: HeldByDebugger;
  #cpu: DebuggedCpu;
  #registers: readonly Register[];
  readonly #breakpoints = new Map<bigint, number>();
  readonly #watched: Watched[] = [];
  /** What stopped the run that is on. */
  #hit: { readonly cpu: number; readonly watch: WatchHit | null } | null = null;
  #dma: { readonly watched: Watched; readonly address: number; readonly event: TracedEvent } | null = null;
  #listens = false;
  /** On the way to a place: nothing stops it there. */
  #travels = false;
  /** What is to be done once the machine stands and whoever runs it asks what to do. */
  #next: (() => void) | null = null;

  constructor(parts: TargetParts, held: HeldByDebugger) {
    this.#parts = parts;
    this.#held = held;
    this.#cpu = debuggedCpu(held.machine);
    this.#registers = registersOf(this.#cpu);
    this.hold(held);
  }

  /** It is about this machine from here on: one after a reboot, or one that stands elsewhere in the run. */
  hold(held: HeldByDebugger): void {
    this.#held = held;
    this.#cpu = debuggedCpu(held.machine);
    this.#registers = registersOf(this.#cpu);
    held.machine.onBreak = (cpu) => this.#broke(cpu);
    this.#apply();
  }

  /** Everything set is gone, and the machine is nobody's. */
  leave(): void {
    this.physical = false;
    this.#next = null;
    this.#breakpoints.clear();
    this.#watched.length = 0;
    this.#apply();
    this.#held.machine.onBreak = () => {};
    this.#held.machine.pauseBeforeTurnOf = -1;
  }

  get cpu(): DebuggedCpu {
    return this.#cpu;
  }

  get registers(): readonly Register[] {
    return this.#registers;
  }

  /** null: it cannot go back. */
  get past(): Past | null {
    return this.#parts.past;
  }

  get cpus(): number {
    return this.#held.machine.cpus.length;
  }

  /** The CPU that executed last, or is about to. */
  get current(): number {
    return this.#held.machine.turn.cpu;
  }

  /** "runs", "waits", "off". */
  stateOf(cpu: number): string {
    return this.#held.machine.cpus[cpu]?.state ?? "off";
  }

  // --- memory ---

  /** Bytes from an address on, as far as they are RAM: none if the first is not. */
  read(cpu: number, address: bigint, length: number): Uint8Array {
    const { ram } = this.#held.machine.parts.core;
    const bytes = new Uint8Array(length);
    let done = 0;
    for (const { offset, bytes: size } of this.#pieces(cpu, address, length)) {
      bytes.set(ram.subarray(offset, offset + size), done);
      done += size;
    }
    return bytes.subarray(0, done);
  }

  /** All of it or nothing; why not, or null. */
  write(cpu: number, address: bigint, bytes: Uint8Array): string | null {
    if (this.past !== null) return "a replay is what was recorded: its memory is only read";
    const pieces = [...this.#pieces(cpu, address, bytes.length)];
    if (pieces.reduce((sum, piece) => sum + piece.bytes, 0) !== bytes.length) return "no RAM there";
    const { ram } = this.#held.machine.parts.core;
    let done = 0;
    for (const { offset, bytes: size } of pieces) {
      ram.set(bytes.subarray(done, done + size), offset);
      done += size;
    }
    this.cpu.codeChanged();
    return null;
  }

  /** Why not, or null. */
  writeRegister(cpu: number, number: number, value: bigint): string | null {
    if (this.past !== null) return "a replay is what was recorded: its registers are only read";
    const register = this.registers[number];
    if (register?.write === undefined) return `${register?.name ?? "a register of that number"} is only read`;
    register.write(cpu, value);
    return null;
  }

  /** Where in RAM each page's part of a range lies, until the first that is not RAM. */
  *#pieces(cpu: number, address: bigint, length: number): Generator<{ offset: number; bytes: number }> {
    const { ram } = this.#held.machine.parts.core;
    for (let done = 0; done < length; ) {
      const at = BigInt.asUintN(64, address + BigInt(done));
      const physical = this.physical ? at : this.cpu.translate(cpu, at);
      if (physical === null) return;
      const offset = physical - BigInt(RAM_BASE);
      if (offset < 0n || offset >= BigInt(ram.length)) return;
      const bytes = Math.min(length - done, PAGE - Number(at % BigInt(PAGE)));
      yield { offset: Number(offset), bytes };
      done += bytes;
    }
  }

  // --- breakpoints and watchpoints ---

  /** Why not, or null. A breakpoint that is there already is counted. */
  addBreakpoint(address: bigint): string | null {
    if (!this.#breakpoints.has(address) && this.#breakpoints.size >= MOST_BREAKPOINTS)
      return `there are ${MOST_BREAKPOINTS} breakpoints already`;
    this.#breakpoints.set(address, (this.#breakpoints.get(address) ?? 0) + 1);
    this.#apply();
    return null;
  }

  removeBreakpoint(address: bigint): void {
    const count = this.#breakpoints.get(address) ?? 0;
    if (count > 1) this.#breakpoints.set(address, count - 1);
    else this.#breakpoints.delete(address);
    this.#apply();
  }

  addWatchpoint(cpu: number, kind: WatchKind, address: bigint, length: number): string | null {
    const pieces = [...this.#pieces(cpu, address, length)].map(
      ({ offset, bytes }): Watchpoint => ({
        ...{ address: RAM_BASE + offset, bytes },
        loads: kind !== "watch",
        stores: kind !== "rwatch",
      }),
    );
    if (length === 0 || pieces.reduce((sum, { bytes }) => sum + bytes, 0) !== length) return "no RAM there";
    const used = this.#watched.reduce((sum, watched) => sum + watched.pieces.length, 0);
    if (used + pieces.length > MOST_WATCHPOINTS) return `at most ${MOST_WATCHPOINTS} pages are watched`;
    this.#watched.push({ kind, address, bytes: length, pieces });
    this.#apply();
    return null;
  }

  removeWatchpoint(kind: WatchKind, address: bigint, length: number): void {
    const index = this.#watched.findIndex(
      (one) => one.kind === kind && one.address === address && one.bytes === length,
    );
    if (index >= 0) this.#watched.splice(index, 1);
    this.#apply();
  }

  #apply(): void {
    const { trace } = this.#parts;
    const { machine } = this.#held;
    const travels = this.#travels;
    machine.parts.core.setBreakpoints(travels ? [] : [...this.#breakpoints.keys()]);
    machine.parts.core.setWatchpoints(travels ? [] : this.#watched.flatMap(({ pieces }) => pieces));
    const listens = !travels && this.#watched.length > 0;
    if (listens === this.#listens) return;
    this.#listens = listens;
    if (listens) trace.addSink(this);
    else trace.removeSink(this);
  }

  /** A device's transfer, which may touch what is watched. */
  event(event: TracedEvent): void {
    if (event.type !== "dma" || event.result !== "ok" || event.spa === undefined || this.#dma !== null) return;
    const { control } = this.#parts;
    // Before it runs, nothing stops.
    if (control.paused) return;
    const first = this.#held.guestAddress(event.spa);
    if (first < 0) return;
    for (const watched of this.#watched) {
      for (const { address, bytes, loads, stores } of watched.pieces) {
        if (!(event.write ? stores : loads) || address >= first + event.length || address + bytes <= first) continue;
        this.#dma = { watched, address: Math.max(address, first), event };
        control.breakAt({ reason: "breakpoint", cpu: this.current });
        return;
      }
    }
  }

  #broke(cpu: number): void {
    const { control } = this.#parts;
    const { machine } = this.#held;
    this.#hit = { cpu, watch: machine.parts.core.watchHit };
    control.breakAt({ reason: "breakpoint", cpu });
  }

  // --- running ---

  /** Tells `halted` when it stands. */
  resume(halted: (halt: Halt) => void): void {
    this.#begin();
    this.#parts.control.whenStopped((stop) => halted(this.#halt(stop, this.current)));
    this.#parts.control.resume();
  }

  /** One instruction of a CPU. */
  step(cpu: number, halted: (halt: Halt) => void): void {
    const { control } = this.#parts;
    const { machine } = this.#held;
    if (this.stateOf(cpu) === "off") {
      halted({ cpu, why: "trap" });
      return;
    }
    this.#begin();
    const one = (): void => control.step(1, (stop) => halted(this.#halt(stop, cpu)));
    const { turn } = machine;
    if (turn.cpu === cpu && machine.parts.core.executed < turn.end) {
      one();
      return;
    }
    machine.pauseBeforeTurnOf = cpu;
    control.whenStopped((stop) => {
      const arrived = machine.pauseBeforeTurnOf < 0 && this.#dma === null && this.#hit?.watch === null;
      machine.pauseBeforeTurnOf = -1;
      if (stop.reason === "breakpoint" && arrived) {
        this.#begin();
        one();
      } else halted(this.#halt(stop, cpu));
    });
    control.resume();
  }

  /** From outside: it stands before its next instruction. */
  interrupt(): void {
    this.#parts.control.pause();
  }

  /** Between two slices of the machine: goes on with what has been begun. */
  turn(): void {
    while (this.#next !== null) {
      const next = this.#next;
      this.#next = null;
      next();
    }
  }

  /** Runs on to where so many instructions have been executed, or to where it stops; `halted` is called when it stands, by `turn`. */
  runTo(instructions: number, halted: (halt: Halt, arrived: boolean) => void): void {
    const { past, control } = this.#parts;
    this.#begin();
    control.step(instructions - past!.here.instructions, (stop) => {
      const halt = this.#halt(stop, this.current);
      this.#next = () => halted(halt, stop.reason === "step");
    });
  }

  /** To where so many instructions have been executed, back or on, past everything that would stop it; an interrupt does: `interrupted`. */
  goTo(instructions: number, arrived: () => void, interrupted: (halt: Halt) => void): void {
    this.#travels = true;
    this.#apply();
    this.#begin();
    this.#parts.past!.toInstruction(instructions, (stop) => {
      this.#next = () => {
        this.#travels = false;
        this.#apply();
        if (stop.reason === "pause") interrupted({ cpu: this.current, why: "interrupt" });
        else arrived();
      };
    });
  }

  /** Instructions of a CPU's own. */
  executedBy(cpu: number): number {
    return this.#held.machine.parts.core.instructionsOf(cpu);
  }

  /** Where the turn began in which the last instruction was executed. */
  get turnStart(): number {
    const { machine } = this.#held;
    return this.#parts.past!.here.instructions - (machine.parts.core.executed - machine.turn.start);
  }

  #begin(): void {
    this.#hit = null;
    this.#dma = null;
  }

  /** `cpu`: whose step it was. */
  #halt(stop: Stop, cpu: number): Halt {
    const dma = this.#dma;
    const hit = this.#hit;
    if (dma !== null) {
      const { watched, address, event } = dma;
      const touched = { kind: watched.kind, address: this.#asAsked(watched, address) };
      return { cpu: this.current, why: "trap", watch: touched, text: textOf(event, address) };
    }
    if (stop.reason === "breakpoint" && hit !== null) {
      if (hit.watch === null) return { cpu: hit.cpu, why: "trap" };
      const { index, address } = hit.watch;
      const watched = this.#watchedOf(index);
      if (watched === null) return { cpu: hit.cpu, why: "trap" };
      return { cpu: hit.cpu, why: "trap", watch: { kind: watched.kind, address: this.#asAsked(watched, address) } };
    }
    if (stop.reason === "end") return { cpu: this.current, why: "end" };
    if (stop.reason === "pause") return { cpu: this.current, why: "interrupt" };
    return { cpu, why: "trap" };
  }

  #watchedOf(piece: number): Watched | null {
    let first = 0;
    for (const watched of this.#watched) {
      if (piece < first + watched.pieces.length) return watched;
      first += watched.pieces.length;
    }
    return null;
  }

  /** A guest-physical address within a watchpoint, in the space in which it was asked for. */
  #asAsked(watched: Watched, address: number): bigint {
    let before = 0;
    for (const piece of watched.pieces) {
      if (address >= piece.address && address < piece.address + piece.bytes)
        return watched.address + BigInt(before + address - piece.address);
      before += piece.bytes;
    }
    return watched.address;
  }
}

function textOf(event: TracedEvent, address: number): string {
  if (event.type !== "dma") return "";
  const { device, iova, length, write, seq } = event;
  const did = write ? "wrote" : "read";
  return (
    `device ${device} ${did} guest-physical 0x${address.toString(16)} by DMA ` +
    `(${length} bytes at IOVA 0x${iova.toString(16)}, event ${seq} of the trace)`
  );
}

function debuggedCpu({ parts }: KernelMachine): DebuggedCpu {
  const { ram } = parts.core;
  const view = new DataView(ram.buffer, ram.byteOffset, ram.byteLength);
  return parts.debugged((address) => {
    const offset = address - BigInt(RAM_BASE);
    return offset >= 0n && offset + 8n <= BigInt(ram.length) ? view.getBigUint64(Number(offset), true) : null;
  });
}
