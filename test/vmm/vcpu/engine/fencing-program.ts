// Random programs that keep the rules: they fence what they change, code and page tables alike, so nothing that the engine may keep or forget is theirs to
// see. What they are made of is an instruction set's (Assembler); which steps, where and in which order is drawn here.
//
// Each CPU has an area of RAM of its own, and runs there for ever: a round of steps, calls of functions that lie across pages, mapped at several addresses.
//
//   +0x00000  vectors, and what user mode returns by        +0x30000  frames of the data window and of code that is mapped in turns
//   +0x01000  the rounds                                     +0x50000  page tables: 39 bits, three levels, one to one but for the windows
//   +0x08000  functions
import type { EngineCore, EngineExports, Exit } from "../../../../vmm/vcpu/engine/core.ts";
import { generator } from "../riscv64/reference/integer.ts";
import { type Configuration, MACHINES, type MachineOptions } from "./configurations.ts";
import { ConfiguredCore, type EngineOptions } from "./configured-core.ts";
import { RandomDevice } from "./random-device.ts";

export type Draw = (bound: number) => number;

export const RAM = 0x8000_0000;
export const AREA_BYTES = 0x6_0000;
export const DEVICE = 0x1000_0000;
/** Nothing is mapped there. */
export const NOWHERE = 0x7000_0000;
/** Virtual: data for both modes, the same frames for the program's and for user mode; code that is mapped in turns; an area's code for user mode. */
export const WINDOW = 0x4000_0000;
export const USER_WINDOW = 0x5000_0000;
const TURNS = 0x4800_0000;
const USER_CODE = 0x6000_0000;
/** Many more than frames: pages are in each other's way in any cache of translations. */
export const WINDOW_PAGES = 512;
const WINDOW_FRAMES = 16;
const TURN_PAGES = 512;
const TURN_FRAMES = 3;

const [VECTORS, ROUNDS, FUNCTIONS, FRAMES, TABLES] = [0, 0x1000, 0x8000, 0x3_0000, 0x5_0000];
export const STACK_TOP = 0x4_f000;
/** Where user mode ends: an instruction that calls the program back. */
export const USER_END = 0xff0;
const FUNCTION_PAGES = 36;

/** What steps are made of. Each writes instructions at `at` and moves it behind them. */
export interface Assembler {
  at: number;
  /** Where exceptions and interrupts go: at an area's VECTORS. */
  vectors(area: number): void;
  /** One that computes: integers, flags, floats, vectors, counters. */
  compute(): void;
  /** Loads or stores in the data window, `page` and the ones beside it. */
  access(page: number): void;
  /** Atomic: as exclusives, or in one. */
  atomic(page: number): void;
  /** Branches over the body, or does not. */
  maybe(body: () => void): void;
  loop(count: number, body: () => void): void;
  /** A function's ends, if it calls others. */
  enter(): void;
  leave(calls: boolean): void;
  /** Directly, or by a register. */
  call(address: number, byRegister: boolean): void;
  jump(address: number, byRegister: boolean): void;
  /** Calls `first` or the same place of one of the 511 pages behind it, another one each time. */
  callOneOf(first: number): void;
  /** An instruction that `patch` changes; returns its address. */
  patchable(): number;
  /** Changes it and fences that line of code. */
  patch(address: number): void;
  /** Exchanges two entries of page tables, and fences: the two addresses, or everything. */
  exchange(entries: readonly [number, number], addresses: readonly [number, number], everything: boolean): void;
  /** Without this entry meanwhile. */
  without(entry: number, address: number, body: () => void): void;
  device(): void;
  exception(): void;
  /** Calls a function in user mode, at `address`; `end` is where it returns to there. */
  user(address: number, end: number): void;
  wait(): void;
}

/** Page tables of an instruction set: an entry of the last level; of one before that maps all it covers; that points to a table. */
export interface Tables {
  page(physical: number, rights: { readonly user: boolean; readonly execute: boolean }): bigint;
  block(physical: number): bigint;
  table(physical: number): bigint;
}

/** Writes a CPU's program into its area; returns the root of its page tables. */
export function writeProgram(ram: DataView, area: number, assembler: Assembler, tables: Tables, draw: Draw): number {
  const frames = area + FRAMES;
  const root = area + TABLES;
  const [middle, windows, user, turns, userCode] = [1, 2, 3, 4, 5].map((n) => root + n * 0x1000) as [
    ...[number, number, number, number, number],
  ];
  const set = (table: number, index: number, entry: bigint): void =>
    ram.setBigUint64(table - RAM + index * 8, entry, true);
  set(root, 0, tables.block(0));
  set(root, 1, tables.table(middle));
  set(root, 2, tables.block(RAM));
  const middleOf = (address: number): number => (address - WINDOW) / 2 ** 21;
  set(middle, middleOf(WINDOW), tables.table(windows));
  set(middle, middleOf(USER_WINDOW), tables.table(user));
  set(middle, middleOf(TURNS), tables.table(turns));
  set(middle, middleOf(USER_CODE), tables.table(userCode));
  for (let page = 0; page < WINDOW_PAGES; page++) {
    // neighbours in the window are none in RAM
    const frame = frames + ((page * 5) % WINDOW_FRAMES) * 0x1000;
    set(windows, page, tables.page(frame, { user: false, execute: false }));
    set(user, page, tables.page(frame, { user: true, execute: false }));
  }
  for (let page = 0; page < AREA_BYTES / 0x1000; page++)
    set(userCode, page, tables.page(area + page * 0x1000, { user: true, execute: true }));
  for (let at = frames; at < frames + WINDOW_FRAMES * 0x1000; at += 4) ram.setUint32(at - RAM, draw(2 ** 32), true);

  assembler.at = area + VECTORS;
  assembler.vectors(area);

  const patchables: number[] = [];
  const leaf = (): void => {
    const some = (steps: number): void => {
      for (let n = 0; n < steps; n++) {
        if (draw(3) === 0) assembler.access(draw(WINDOW_PAGES));
        else if (draw(40) === 0) assembler.atomic(draw(WINDOW_PAGES));
        else if (draw(60) === 0) assembler.exception();
        else assembler.compute();
      }
    };
    some(1 + draw(6));
    if (draw(2) === 0) patchables.push(assembler.patchable());
    if (draw(2) === 0) assembler.maybe(() => some(1 + draw(4)));
    if (draw(2) === 0) assembler.loop(1 + draw(draw(3) === 0 ? 200 : 12), () => some(1 + draw(8)));
    if (draw(2) === 0) assembler.maybe(() => some(1 + draw(4)));
  };

  // Functions from the last to the first, each in two pages of its own: it may call what is behind it.
  const functions: { readonly address: number; readonly isLeaf: boolean }[] = [];
  for (let page = FUNCTION_PAGES - 2; page >= 0; page -= 2 + draw(2)) {
    const start = draw(3) === 0 ? 0xf80 + draw(0x20) * 4 : draw(0x100) * 4;
    assembler.at = area + FUNCTIONS + page * 0x1000 + start;
    const address = assembler.at;
    const calls = functions.length > 0 && draw(3) === 0;
    if (calls) assembler.enter();
    leaf();
    if (calls) {
      assembler.call(functions[draw(functions.length)]!.address, draw(2) === 0);
      leaf();
    }
    if (!calls && functions.length > 0 && draw(4) === 0) {
      const other = functions[draw(functions.length)]!;
      assembler.jump(other.address, draw(2) === 0);
      functions.push({ address, isLeaf: false });
    } else {
      assembler.leave(calls);
      functions.push({ address, isLeaf: !calls });
    }
  }
  const leaves = functions.filter(({ isLeaf }) => isLeaf);

  // Pages of code that are mapped in turns at TURNS: a function at the same place of each.
  const entryInPage = draw(0x100) * 4;
  const turnFrame = (n: number): number => frames + (WINDOW_FRAMES + (n % TURN_FRAMES)) * 0x1000;
  for (let n = 0; n < TURN_FRAMES; n++) {
    assembler.at = turnFrame(n) + entryInPage;
    leaf();
    assembler.leave(false);
  }
  for (let page = 0; page < TURN_PAGES; page++)
    set(turns, page, tables.page(turnFrame(page), { user: false, execute: true }));

  const turnOf = (page: number): number => TURNS + page * 0x1000;
  const two = (bound: number): readonly [number, number] => {
    const first = draw(bound);
    return [first, (first + 1 + draw(bound - 1)) % bound];
  };
  const steps: readonly (() => void)[] = [
    () => assembler.compute(),
    () => assembler.access(draw(WINDOW_PAGES)),
    ...Array.from({ length: 6 }, () => () => assembler.call(functions[draw(functions.length)]!.address, draw(2) === 0)),
    () => assembler.loop(1 + draw(4), () => assembler.compute()),
    () => assembler.call(turnOf(draw(TURN_PAGES)) + entryInPage, true),
    ...Array.from({ length: 4 }, () => () => assembler.callOneOf(TURNS + entryInPage)),
    () => {
      const pages = two(TURN_PAGES);
      const entries = pages.map((page) => turns + page * 8) as [number, number];
      assembler.exchange(entries, pages.map(turnOf) as [number, number], draw(2) === 0);
      assembler.call(turnOf(pages[0]) + entryInPage, true);
    },
    () => {
      const pages = two(WINDOW_PAGES);
      const entries = pages.map((page) => windows + page * 8) as [number, number];
      assembler.exchange(entries, pages.map((page) => WINDOW + page * 0x1000) as [number, number], draw(2) === 0);
      assembler.access(pages[0]);
    },
    () => {
      const page = draw(WINDOW_PAGES);
      assembler.without(windows + page * 8, WINDOW + page * 0x1000, () => {
        for (let n = 0; n < 3; n++) assembler.access(page);
      });
    },
    () => {
      const page = draw(TURN_PAGES);
      assembler.without(turns + page * 8, turnOf(page), () => assembler.call(turnOf(page) + entryInPage, true));
    },
    ...Array.from({ length: 2 }, () => () => {
      if (patchables.length > 0) assembler.patch(patchables[draw(patchables.length)]!);
    }),
    () => assembler.device(),
    () => assembler.device(),
    () => assembler.exception(),
    () => assembler.atomic(draw(WINDOW_PAGES)),
    () => assembler.maybe(() => assembler.compute()),
    () => assembler.call(NOWHERE, true),
    () => {
      if (leaves.length === 0) return;
      const { address } = leaves[draw(leaves.length)]!;
      assembler.user(USER_CODE + address - area, USER_CODE + USER_END);
    },
  ];
  assembler.at = area + ROUNDS;
  const again = assembler.at;
  const count = 15 + draw(40);
  for (let n = 0; n < count; n++) steps[draw(steps.length)]!();
  if (draw(3) === 0) assembler.wait();
  assembler.jump(again, true);
  return root;
}

/** A guest of an instruction set's: its core, and how programs come into it. */
export interface FencingGuest<Core extends EngineCore<EngineExports>> {
  make(options: EngineOptions & Omit<MachineOptions, "name"> & { ramBytes: number; mmio: RandomDevice<Core> }): Core;
  /** Writes a program for CPU `cpu` and readies it. */
  boot(core: Core, cpu: number, area: number, start: number, draw: Draw): void;
  interrupt(core: Core, value: number): void;
  /** Told of each access to the device, behind what the device itself does. */
  accessed?(core: Core, address: number): void;
  /** When the CPU's timer is due, ns. */
  timer(core: Core, cpu: number): number;
  /** All that the CPU's program can see of it. */
  registers(core: Core, cpu: number): string;
}

export interface Ran {
  /** Of each run that was asked for: how it ended, where, when. */
  readonly runs: readonly string[];
  readonly registers: readonly string[];
  readonly device: string;
  readonly ram: number;
  /** Not the guest's to see. */
  readonly told: {
    readonly translations: number;
    readonly moves: number;
    readonly stops: number;
    readonly executed: number;
  };
}

/** Runs the programs of `seed` for about `instructions`. */
export function runGuest<Core extends EngineCore<EngineExports>>(
  guest: FencingGuest<Core>,
  seed: number,
  configuration: Configuration,
  machine: MachineOptions = MACHINES[seed % MACHINES.length]!,
  instructions = 40_000,
): Ran {
  const next = generator(seed);
  const draw = (bound: number): number => next() % bound;
  const { name: _, ...visible } = machine;
  const mmio = new RandomDevice<Core>(generator(seed ^ 0x5bd1e995), guest.interrupt, guest.accessed);
  const ramBytes = machine.harts * AREA_BYTES;
  const make = (options: EngineOptions): Core => guest.make({ ...options, ...visible, ramBytes, mmio });
  const runner = new ConfiguredCore(make, configuration, generator(seed ^ 0x2545f491));
  for (let cpu = 0; cpu < machine.harts; cpu++) {
    const area = RAM + cpu * AREA_BYTES;
    guest.boot(runner.core, cpu, area, area + ROUNDS, draw);
  }
  mmio.runner = runner;
  const runs: string[] = [];
  for (let cpu = 0; runner.core.executed < instructions && runs.length < 2000; cpu = (cpu + 1) % machine.harts) {
    const exit: Exit = runner.run(cpu, 1 + draw([20, 300, 2000, 10_000][draw(4)]!));
    const { core } = runner;
    runs.push(`${exit} ${core.programCounter(cpu).toString(16)} ${core.now} ${core.executed}`);
    if (exit === 1) core.now = Math.min(core.now + 1 + draw(5000), Math.max(core.now, guest.timer(core, cpu)));
  }
  const { core } = runner;
  const ram = new Uint32Array(core.memory.buffer, core.ramOffset, ramBytes / 4);
  return {
    runs,
    registers: Array.from({ length: machine.harts }, (_, cpu) => guest.registers(core, cpu)),
    device: `${mmio.accesses} ${mmio.sum}`,
    ram: ram.reduce((sum, word) => (Math.imul(sum, 31) + word) | 0, 0),
    told: { translations: core.translations, moves: runner.moves, stops: runner.stops, executed: core.executed },
  };
}
