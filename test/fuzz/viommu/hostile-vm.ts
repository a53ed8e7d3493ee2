// What hostile guests of every kind of IOMMU share: the machine around them, the operations that name no register or table of a kind, and the
// invariants that are checked after each operation. A kind's hostile guest says the rest.

import type { Clock } from "../../../host/base/clock.ts";
import type { MmioPort } from "../../../host/base/mmio.ts";
import type { Trace } from "../../../host/base/trace.ts";
import { Edu, type EduOptions } from "../../../host/devices/edu/edu.ts";
import * as R from "../../../host/devices/edu/registers.ts";
import type { PciFunction } from "../../../host/devices/ports.ts";
import type { HardwareIommu } from "../../../host/hw/iommu/port.ts";
import { NO_INJECTION } from "../../../host/kernel/inject.ts";
import type { Kernel } from "../../../host/kernel/kernel.ts";
import type { Process } from "../../../host/kernel/process.ts";
import type { DeviceState } from "../../../vmm/viommu/dispositions.ts";
import type { GuestVisibleIommu } from "../../../vmm/viommu/kind.ts";
import { eduDma, eduOutcome } from "../../host/kernel/machine.ts";
import { KINDS, type Kind, type Operation } from "./operations.ts";

/** The first two functions of every host. */
export const FIRST = 0x0108;
export const SECOND = 0x0110;
/** Pages of guest RAM. */
export const RAM_PAGES = 256;
/** An edu with everything. */
export const FULL: EduOptions = { pasidBits: 20, ats: true, pri: true, misbehaviour: true };

const INJECTED = [
  "IOMMU_HWPT_ALLOC",
  "VFIO_DEVICE_ATTACH_IOMMUFD_PT",
  "IOMMU_HWPT_INVALIDATE",
  "VFIO_DEVICE_DETACH_IOMMUFD_PT",
  "IOMMU_VDEVICE_ALLOC",
  "IOMMU_DESTROY",
  "VFIO_DEVICE_SET_IRQS",
  "VFIO_DEVICE_RESET",
];
const ERRNOS = [5, 12, 14, 16, 22, 95, 110];

/** Registers of edu that make it interesting; undefined: any of the first. */
const BAR_REGISTERS = [
  R.PASID,
  R.TRANSLATION_MODE,
  R.MISBEHAVIOUR,
  R.INTERRUPT_RAISE,
  R.INTERRUPT_ACKNOWLEDGE,
  R.INVALIDATION_DELAY,
  R.STOP_MARKER,
  undefined,
];

/** The virtual machine, as a kind's tests build it. */
export interface HostileHost extends Disposable {
  readonly machine: {
    readonly kernel: Kernel;
    readonly clock: Clock;
    readonly trace: Trace;
    readonly iommus: readonly HardwareIommu[];
    readonly memory: { readonly banks: readonly { readonly pages: number; readonly basePfn: number }[] };
  };
  readonly process: Process;
  readonly reports: string[];
  settle(): void;
  run(ns?: number): void;
}

/** A device a guest can drive. */
export interface Target {
  readonly guestId: number;
  readonly bar: MmioPort;
  readonly config: Pick<PciFunction, "configRead" | "configWrite">;
  readonly pasids: boolean;
  readonly emulated: boolean;
}

/** What a kind says about a DMA that is compared with its oracle. */
export interface CheckedDma<Record, Expected> {
  /** Guest-physical start of RAM. */
  readonly ram: bigint;
  /** Nothing else is under way; false: it does not end. */
  quiet(target: Target): boolean;
  /** -1: none. */
  pasid(target: Target): number;
  /** Has the guest invalidate all there is; true if the queue did it. */
  invalidateAll(): boolean;
  takeRecords(): readonly Record[];
  /** Where it goes (null: refused) and what is recorded, all that is right; null: the specification leaves it open. */
  expected(
    target: Target,
    pasid: number,
    address: bigint,
    write: boolean,
  ): readonly { readonly address: bigint | null; readonly record: Expected | null }[] | null;
  wrongRecord(records: readonly Record[], expected: Expected | null): string | null;
  /** For the summary. */
  named(record: Record): string;
  /** Gives the page of an IOVA another frame, in the tables of a well-formed guest. */
  movePage(choice: number): void;
}

/** A page as hostile tables number it, from any number. */
export type IovaPage = (choice: number) => number;

export abstract class HostileVm<H extends HostileHost, C> {
  readonly vm: H;
  /** What went wrong, in one line; null: nothing so far. */
  problem: string | null = null;
  /** What DMA was compared with the oracle, by how it ended. */
  readonly compared = new Map<string, number>();
  /** Calls that still fail on purpose. */
  protected injecting = 0;
  /** Requests that reached the hardware IOMMU, and the frame of the last that translated. */
  protected translations = 0;
  protected lastFrame = -1;
  protected readonly ramFrame: number;

  /** `doorbells`: first page of the host's interrupt files. */
  constructor(vm: H, doorbells = 0x2_8000) {
    this.vm = vm;
    this.ramFrame = vm.machine.memory.banks.find(({ pages }) => pages === RAM_PAGES)!.basePfn;
    this.#watchTranslations(doorbells);
  }

  // --- what a kind says ---

  protected abstract readonly iommu: GuestVisibleIommu & {
    readonly dispositions: { readonly all: Iterable<DeviceState<C>> };
  };
  /** Bytes of its register space that reads and stray writes go to. */
  protected abstract readonly registerMask: number;
  /** Offsets of registers that do something. */
  protected abstract readonly offsets: readonly number[];
  protected abstract readonly iovaPage: IovaPage;
  /** A value that a register may be given. */
  protected abstract value(a: number, b: number): number;
  /** Stores into tables, commands, queues, plugging: the operations that only the kind knows. */
  protected abstract act(kind: Kind, a: number, b: number, c: number, d: number): void;
  /** The device that a number means; null: it is unplugged. */
  protected abstract target(a: number): Target | null;
  /** Bits that the device may not be given in a register of its own, because the host trusts it; null: the register is none of the guest's. */
  protected abstract forbiddenBits(target: Target, register: number): number | null;
  protected abstract invariants(): void;
  protected abstract disposition(state: DeviceState<C>): void;

  // --- running ---

  /** Does one operation and checks the invariants. */
  step([kind, a, b, c, d]: Operation): void {
    try {
      this.#do(KINDS[kind % KINDS.length]!, a, b, c, d);
      this.vm.settle();
      this.#check();
    } catch (error) {
      this.fail(`exception: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
    }
  }

  /** Takes everything down; the host must be as it was. */
  finish(): void {
    const { machine, process } = this.vm;
    try {
      machine.kernel.injector = NO_INJECTION;
      this.vm[Symbol.dispose]();
      if (process.openFiles !== 0) this.fail(`${process.openFiles} descriptors left open`);
      process.exit();
      const left = machine.kernel.liveKinds;
      if (left.length > 0) this.fail(`left in the host: ${left.map(([kind, count]) => `${count} ${kind}`).join(", ")}`);
    } catch (error) {
      this.fail(`exception at the end: ${error instanceof Error ? error.message : String(error)}`);
    }
  }

  protected fail(problem: string): void {
    this.problem ??= problem;
  }

  /** An edu model on the VM's own bus, behind the same vIOMMU. */
  protected emulate(guestId: number): Target {
    const edu = new Edu({ name: "emulated", ...FULL });
    this.iommu.plug({
      ...{ handle: 1, guestId, name: "emulated", hostName: "emulated" },
      ...{ ats: true, pri: true, emulated: true },
    });
    edu.connect({
      dma: this.iommu.emulatedDma(() => guestId, edu.atsTarget),
      interrupt: { intx: () => {} },
      clock: this.vm.machine.clock,
    });
    enable(edu, 0x0f, 6, 0x8000);
    enable(edu, 0x13, 0x0c, 32);
    enable(edu, 0x13, 4, 1);
    enable(edu, 0x1b, 6, 1);
    edu.configWrite(4, 2, 6);
    return { guestId, bar: edu.bars[0]!.registers, config: edu, pasids: true, emulated: true };
  }

  #watchTranslations(doorbells: number): void {
    const iommu = this.vm.machine.iommus[0]!;
    const translate = iommu.translate.bind(iommu);
    iommu.translate = (...request) => {
      const status = translate(...request);
      this.translations++;
      if (status === 0) {
        const frame = iommu.resultPfn as number;
        this.lastFrame = frame;
        const inRam = frame >= this.ramFrame && frame < this.ramFrame + RAM_PAGES;
        if (!inRam && (frame < doorbells || frame >= doorbells + 2))
          this.fail(`device ${request[0].toString(16)} reached host frame 0x${frame.toString(16)}`);
      }
      return status;
    };
  }

  #do(kind: Kind, a: number, b: number, c: number, d: number): void {
    const { iommu } = this;
    const offset = this.offsets[a % this.offsets.length]!;
    switch (kind) {
      case "write32":
        iommu.mmioWrite(a % 7 === 0 ? b & this.registerMask : offset, 4, this.value(c, d), 0);
        return;
      case "write64":
        iommu.mmioWrite(offset, 8, this.value(c, d), this.value(d, c));
        return;
      case "read":
        iommu.mmioRead(b & this.registerMask, a % 3 === 0 ? 8 : 4);
        return;
      case "dma": {
        const target = this.target(a);
        if (target === null) return;
        const address = (BigInt(this.iovaPage(b)) << 12n) | BigInt(c & 0xfff);
        eduDma(target.bar, address, 1 + (d % 4096), (a & 2) !== 0, (a & 4) !== 0);
        this.vm.run(d % 50_000);
        return;
      }
      case "run":
        this.vm.run(a % 30_000);
        return;
      case "reset":
        iommu.reset();
        return;
      case "inject":
        this.#inject(a, b, c);
        return;
      case "barWrite": {
        const target = this.target(a);
        if (target === null) return;
        const register = BAR_REGISTERS[c % BAR_REGISTERS.length] ?? b & 0xfc;
        const forbidden = this.forbiddenBits(target, register);
        if (forbidden === null) return;
        target.bar.mmioWrite(register, 4, (this.value(d, b) & ~forbidden) >>> 0, 0);
        return;
      }
      default:
        this.act(kind, a, b, c, d);
    }
  }

  /** The next few calls of one kind, allocations, or events fail. */
  #inject(a: number, b: number, c: number): void {
    const { kernel } = this.vm.machine;
    this.injecting = 1 + (b % 3);
    const call = INJECTED[a % INJECTED.length]!;
    const errno = ERRNOS[c % ERRNOS.length]!;
    const spend = () => {
      this.injecting--;
      if (this.injecting <= 0) {
        this.injecting = 0;
        kernel.injector = NO_INJECTION;
      }
      return true;
    };
    const kind = (a >>> 8) % 4;
    kernel.injector = {
      ioctl: (ioctl) => (kind < 2 && ioctl === call && spend() ? -errno : 0),
      allocation: () => kind === 2 && spend(),
      loseEvent: () => kind === 3 && spend(),
    };
  }

  /** Waits until none of these has a DMA under way, and clears what would disturb a question to the first; false if one will not end. */
  protected quiet(
    asked: Target,
    others: readonly (Target | null)[],
    hurry: (target: Target) => void = () => {},
  ): boolean {
    for (const target of [asked, ...others]) {
      if (target === null) continue;
      target.config.configWrite(4, 2, 6);
      const running = () => (target.bar.mmioRead(R.DMA_COMMAND, 4) & R.COMMAND_RUN) !== 0;
      for (let i = 0; i < 20 && running(); i++) {
        hurry(target);
        this.vm.run(400_000);
      }
      if (running()) return false;
    }
    asked.bar.mmioWrite(R.TRANSLATION_MODE, 4, 0, 0);
    asked.bar.mmioWrite(R.MISBEHAVIOUR, 4, 0, 0);
    return true;
  }

  /** One burst of a device after everything was invalidated, against the oracle. */
  protected checkedDma<Record, Expected>(a: number, b: number, c: number, ask: CheckedDma<Record, Expected>): void {
    const target = this.target(a);
    if (target === null || this.injecting > 0 || !ask.quiet(target)) return;
    const pasid = ask.pasid(target);
    target.bar.mmioWrite(R.PASID, 4, pasid >= 0 ? (R.PASID_VALID | pasid) >>> 0 : 0, 0);
    if (!ask.invalidateAll()) return;
    // Records and interrupts that are on their way arrive before the question is asked.
    this.vm.run(100_000);
    ask.takeRecords();
    const toRam = (a & 2) !== 0;
    const address = (BigInt(this.iovaPage(b)) << 12n) | BigInt(c & 0xfc0);
    const expected = ask.expected(target, pasid, address, toRam);
    if (expected === null) return;
    const before = this.translations;
    eduDma(target.bar, address, 64, toRam);
    this.vm.run(100_000);
    // A function that is asleep (power state) sends nothing.
    if (!target.emulated && this.translations === before) return;
    const outcome = eduOutcome(target.bar);
    if (outcome === R.OUTCOME_PASID_DISABLED) return;
    const records = ask.takeRecords();
    const waits = (target.bar.mmioRead(R.DMA_COMMAND, 4) & R.COMMAND_RUN) !== 0;
    const done = !waits && outcome === R.OUTCOME_DONE;
    const complaints = new Set<string>();
    for (const { address: goes, record } of expected) {
      const wanted = goes === null ? null : this.ramFrame + Number((goes - ask.ram) >> 12n);
      const why =
        (goes !== null) !== done
          ? `the oracle says ${goes === null ? "refused" : "done"}, it was outcome ${outcome}`
          : !target.emulated && wanted !== null && this.lastFrame !== wanted
            ? `the oracle says page ${wanted - this.ramFrame}, it was ${this.lastFrame - this.ramFrame}`
            : ask.wrongRecord(records, record);
      if (why !== null) {
        complaints.add(why);
        continue;
      }
      const heard = records[0] === undefined ? "" : `, ${ask.named(records[0])}`;
      const ended = done ? "done" : `${waits ? "stalled" : "refused"}${heard}`;
      this.counted(`${target.emulated ? "emulated" : "assigned"}${pasid < 0 ? "" : " PASID"} ${ended}`);
      if (done && (a & 16) !== 0) {
        // The page of a well-formed table moves: after an invalidation the device must follow.
        ask.movePage(b);
        this.checkedDma(a & ~16, b, c, ask);
      }
      return;
    }
    const where = `DMA of guest device 0x${target.guestId.toString(16)} PASID ${pasid} at 0x${address.toString(16)}`;
    this.fail(`${where}: ${[...complaints].join("; or ")}`);
  }

  protected counted(how: string): void {
    this.compared.set(how, (this.compared.get(how) ?? 0) + 1);
  }

  #check(): void {
    const { machine, process, reports } = this.vm;
    for (const state of this.iommu.dispositions.all) this.disposition(state);
    this.invariants();
    if (process.openFiles > 64) this.fail(`${process.openFiles} open files`);
    if (machine.kernel.live.total > 400) this.fail(`${machine.kernel.live.total} live objects`);
    if (machine.clock.pending > 2_000) this.fail(`${machine.clock.pending} clock events`);
    if (reports.length > 100) reports.splice(0, 50);
  }
}

/** Sets bits in a register of a function's extended capability. */
function enable(device: Edu, id: number, offset: number, bits: number): void {
  for (let at = 0x100; at >= 0x100; ) {
    const header = device.configRead(at, 4);
    if ((header & 0xffff) === id) device.configWrite(at + offset, 2, bits);
    at = header >>> 20;
  }
}
