/**
 * `nestbox fuzz vtd-states`: the VT-d hardware model's own state back with something in it spoiled, between hostile operations. A state is taken, or refused by a
 * StateError that says where; then anything goes on as before: no other exception, no operation that accesses memory without end.
 */
import type { HpaPfn } from "../../host/base/address.ts";
import { Clock } from "../../host/base/clock.ts";
import { ACCESS_OK, type AccessStatus, PhysicalMemory } from "../../host/base/memory.ts";
import { restoreTree, StateError, type StateRecord, type StateValue, saveTree } from "../../host/base/state.ts";
import { Trace } from "../../host/base/trace.ts";
import type { HardwareIommu } from "../../host/hw/iommu/port.ts";
import { VtdUnit } from "../../host/hw/iommu/vtd/unit.ts";
import type { Fuzzer } from "../../vmm/cli/fuzzer.ts";
import { Random } from "../oracle/random.ts";
import { HostileHardware, MOST_ACCESSES, OPERATIONS, runHostile } from "./hardware/hostile-hardware.ts";

const PAGES = 0x100;
/** GCMD with the queue, interrupt remapping and translation turned on one by one, their tables latched in between (§11.4.4). */
const COMMANDS = [0x0400_0000, 0x4400_0000, 0x0500_0000, 0x0600_0000, 0x8600_0000] as const;

class HostileStates extends HostileHardware {
  protected readonly pages = PAGES;
  protected readonly devices = 16;
  /** States taken and refused. */
  readonly restored = { taken: 0, refused: 0 };
  readonly #make: () => VtdUnit;
  #unit: VtdUnit;
  readonly #words: Uint32Array;
  readonly #clock = new Clock();
  #accesses = 0;

  constructor(seed: number) {
    const random = new Random(seed);
    super(random);
    const memory = new PhysicalMemory<HpaPfn>();
    this.#words = memory.addBank(0 as HpaPfn, new ArrayBuffer(PAGES * 4096)).words;
    memory.faults = {
      at: (): AccessStatus => {
        if (++this.#accesses > MOST_ACCESSES) throw new Error(`more than ${MOST_ACCESSES} accesses in one operation`);
        return ACCESS_OK;
      },
    };
    const sizes = random.pick([0, 2, 64]);
    const options = {
      caches: { contexts: sizes, pasids: sizes, translations: sizes * 4, tables: sizes * 8, interrupts: sizes },
      ...(random.chance(50) ? { automaticDelayNs: 100 } : {}),
    };
    const target = { invalidate: (): boolean => random.chance(60), pageResponse: (): void => {} };
    this.#make = () => {
      const unit = new VtdUnit({ name: "dmar", memory, clock: this.#clock, trace: new Trace(this.#clock) }, options);
      unit.findTarget = (deviceId) => (deviceId % 3 === 0 ? undefined : target);
      return unit;
    };
    this.#unit = this.#make();
    for (let index = 0; index < this.#words.length; index += 2) this.#fill(index);
    this.#bringUp();
  }

  #bringUp(): void {
    const page = (): number => this.random.below(PAGES) << 12;
    const registers = [
      [0x90, page() | 0x801],
      [0x20, page() | 0x400],
      [0xb8, page() | 7],
      [0xd0, page()],
    ] as const;
    for (const [offset, value] of registers) this.#unit.registers.mmioWrite(offset, 8, value, 0);
    for (const command of COMMANDS) this.#unit.registers.mmioWrite(0x18, 4, command, 0);
  }

  /** What most structures take for a valid entry that points into memory. */
  #fill(index: number): void {
    const { random } = this;
    this.#words[index] =
      (random.below(PAGES) << 12) | random.pick([0x1, 0x7, 0x67, 0xd, 0x41, 0xc9, 0x303, 0x25, 0x11]);
    this.#words[index + 1] = random.chance(90) ? 0 : random.word();
  }

  protected get iommu(): HardwareIommu {
    return this.#unit;
  }

  protected begin(): void {
    this.#accesses = 0;
  }

  protected advance(ns: number): void {
    this.#clock.advance(ns);
    this.#clock.fireDue();
    this.#restore();
  }

  #restore(): void {
    const record = saveTree(this.#unit);
    try {
      restoreTree(this.#unit, this.random.chance(80) ? (spoiled(record, this.random) as StateRecord) : record);
      this.restored.taken++;
    } catch (error) {
      if (!(error instanceof StateError)) throw error;
      this.restored.refused++;
      // Half restored: to be disposed of.
      this.#unit = this.#make();
      this.#bringUp();
    }
  }

  protected readRegister(): void {
    this.#unit.registers.mmioRead(this.random.below(0x400) * 4, 4);
  }

  protected fill(): void {
    this.#fill(this.random.below(this.#words.length / 2) * 2);
  }

  protected writeRegister(): void {
    const { random } = this;
    const offset = random.pick([0x18, 0x20, 0x34, 0x88, 0x88, 0x90, 0xb8, 0xdc, 0x22c]);
    this.#unit.registers.mmioWrite(offset, 8, random.chance(50) ? random.below(0x400) << 5 : random.word(), 0);
  }

  brokenPromise(): string | null {
    return null;
  }
}

/** The same with one value changed: another number, other bytes, a list or record with something missing. */
function spoiled(value: StateValue, random: Random): StateValue {
  if (typeof value === "number")
    return random.pick([-1, 0, 0.5, 2 ** 31, 2 ** 53, Number.NaN, random.word(), value + 1]);
  if (typeof value === "bigint") return random.pick([0n, -1n, (1n << 64n) - 1n]);
  if (typeof value === "boolean") return random.chance(50) ? !value : 1;
  if (typeof value === "string") return random.pick(["", "nothing", 7]);
  if (value === null) return random.pick([0, "", []]);
  if (value instanceof Uint8Array) {
    if (random.chance(20)) return value.slice(1);
    const bytes = value.slice();
    for (let times = 1 + random.below(8); times > 0 && bytes.length > 0; times--)
      bytes[random.below(bytes.length)] = random.word() & 0xff;
    return bytes;
  }
  if (Array.isArray(value)) {
    const list = value as readonly StateValue[];
    if (list.length === 0 || random.chance(10)) return random.chance(50) ? list.slice(1) : [...list, 0];
    const at = random.below(list.length);
    return list.map((each, index) => (index === at ? spoiled(each, random) : each));
  }
  const record = value as StateRecord;
  const names = Object.keys(record);
  if (names.length === 0) return value;
  const name = random.pick(names);
  if (random.chance(5)) return Object.fromEntries(Object.entries(record).filter(([other]) => other !== name));
  return { ...record, [name]: spoiled(record[name]!, random) };
}

/** Runs one seed; what went wrong, or null. */
export function hostileStates(seed: number, restored = { taken: 0, refused: 0 }): string | null {
  const hostility = new HostileStates(seed);
  const problem = runHostile(hostility);
  restored.taken += hostility.restored.taken;
  restored.refused += hostility.restored.refused;
  return problem;
}

export const fuzzer: Fuzzer = {
  about: "spoiled states of the VT-d unit: taken or refused in words",
  round: (seed, count) => {
    const restored = { taken: 0, refused: 0 };
    const problem = hostileStates(seed, restored);
    count("operations", OPERATIONS);
    count("states taken", restored.taken);
    count("states refused", restored.refused);
    return problem === null ? null : { problem };
  },
};
