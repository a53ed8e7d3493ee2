// A hostile guest on the whole stack: guest-visible IOMMU, VFIO, iommufd, kernel driver, modelled hardware. It does operations, and after
// each one the invariants are checked:
//
//   no exception, no hang, nothing that grows without bound
//   a DMA touches frames of the guest's RAM and the message doorbells only, whatever the hardware translated (watched at its result)
//   every device is in one disposition, and the hardware's context says the same
//   a DMA after the guest invalidated everything does what the oracle says of the guest's tables, and leaves the record it says
//   at the end nothing is left in the host

import type { RiscvCapabilities } from "../../../host/arch/riscv/capabilities.ts";
import { type CommandName, encodeCommand } from "../../../host/arch/riscv/commands.ts";
import { REG, REGISTERS } from "../../../host/arch/riscv/registers.ts";
import * as R from "../../../host/devices/edu/registers.ts";
import { RiscvDriver } from "../../../host/kernel/iommu/riscv/driver.ts";
import type { RiscvIommu as DriverInstance } from "../../../host/kernel/iommu/riscv/instance.ts";
import type { DeviceState } from "../../../vmm/viommu/dispositions.ts";
import type { CanonicalContext } from "../../../vmm/viommu/riscv/context.ts";
import type { RiscvViommu } from "../../../vmm/viommu/riscv/viommu.ts";
import { eduDma, eduOutcome, machine } from "../../host/kernel/machine.ts";
import { type Plugged, Vm } from "../../vmm/vfio/vm.ts";
import { type Guest, PLACE, RAM } from "../../vmm/viommu/guest.ts";
import { expectedDma } from "./expectation.ts";
import { EMULATED_ID, iovaPage, pagePool, storeContext, storeEntry, storeWellFormed, value } from "./hostile-tables.ts";
import { FIRST, FULL, HostileVm, SECOND, type Target } from "./hostile-vm.ts";
import type { Kind } from "./operations.ts";

const GUEST_IDS = [0x10, 0x08, 0x21, 0x7f, 0x100, 0x1_0000];

/** Hosts with less, by number. */
const HOSTS: readonly Partial<RiscvCapabilities>[] = [
  {},
  { ATS: false, T2GPA: false },
  { PD20: false, PD17: false },
  { AMO_HWAD: false, Svpbmt: false },
  { Sv57: false, Sv48: false, S: false, NL: false },
  { Sv57x4: false },
  { T2GPA: false },
];

const COMMANDS: readonly CommandName[] = [
  "IOTINVAL.VMA",
  "IOTINVAL.VMA",
  "IOTINVAL.GVMA",
  "IOFENCE.C",
  "IOFENCE.C",
  "IODIR.INVAL_DDT",
  "IODIR.INVAL_DDT",
  "IODIR.INVAL_PDT",
  "ATS.INVAL",
  "ATS.PRGR",
];

/** Offsets of registers that do something. */
const OFFSETS = REGISTERS.map((register) => register.offset).filter((offset) => offset !== 0);

export class HostileGuest extends HostileVm<Vm, CanonicalContext> {
  readonly devices: (Plugged | null)[];
  protected readonly registerMask = 0xfff;
  protected readonly offsets = OFFSETS;
  protected readonly iovaPage = iovaPage;
  readonly #guest: Guest;
  readonly #instance: DriverInstance;
  readonly #emulated: Target;
  /** The host's IOMMU keeps translated requests behind the second stage. */
  readonly #contained: boolean;

  constructor(seed: number) {
    const capabilities = HOSTS[seed % HOSTS.length]!;
    const devices = [
      { rid: FIRST, options: FULL },
      { rid: SECOND, options: seed % 2 === 0 ? FULL : {} },
    ];
    const vm = new Vm(machine({ iommus: [{ capabilities, atsTimeoutNs: 20_000 }], devices, ramPages: 1024 }));
    const plugged = [vm.assign(FIRST, GUEST_IDS[0]!), vm.assign(SECOND, GUEST_IDS[1]!)];
    super(vm);
    this.devices = plugged;
    this.#contained = capabilities.T2GPA !== false;
    this.#guest = vm.guest;
    const driver = vm.machine.kernel.iommuHardware.driverOf(vm.machine.iommus[0]!);
    if (!(driver instanceof RiscvDriver)) throw new Error("not a RISC-V host");
    this.#instance = driver.instances[0]!;
    this.#emulated = this.emulate(EMULATED_ID);
  }

  protected override get iommu(): RiscvViommu {
    return this.vm.guest.viommu;
  }

  protected override value(a: number, b: number): number {
    return value(a, b);
  }

  protected override act(kind: Kind, a: number, b: number, c: number, d: number): void {
    const guest = this.#guest;
    switch (kind) {
      case "storeWord":
        guest.store64(RAM + BigInt((a % 0x10_0000) & ~7), (BigInt(b) << 32n) | BigInt(c));
        return;
      case "storeContext":
        storeContext(guest, a, b, c, d);
        return;
      case "storeEntry":
        storeEntry(guest, a, b, c);
        return;
      case "storeProcess":
        guest.store64(PLACE.tables + 16n * BigInt(a & 7) + 8n, (BigInt([0, 8, 8, 9, 10][b % 5]!) << 60n) | pagePool(c));
        guest.store64(PLACE.tables + 16n * BigInt(a & 7), BigInt(d & 7) | (BigInt(d & 0x3000) << 0n));
        return;
      case "command":
        this.#command(a, b, c, d);
        return;
      case "rawCommand":
        this.#push([(BigInt(a) << 32n) | BigInt(b), (BigInt(c) << 32n) | BigInt(d)]);
        return;
      case "checkedDma":
        this.#checkedDma(a, b, c);
        return;
      case "setUp":
        this.#setUp(a);
        return;
      case "replug":
        this.#replug(a, b);
        return;
      case "renumber":
        this.#renumber(a, b);
        return;
      case "configWrite": {
        const size = ([1, 2, 4] as const)[b % 3]!;
        const at = a % 2 === 0 ? a & 0xff : a & 0xfff;
        // Function-level resets are an operation of their own.
        this.devices[c & 1]?.device.configWrite(at & ~(size - 1), size, value(d, a));
        return;
      }
      case "functionReset":
        this.devices[a & 1]?.device.reset();
        return;
      case "answer":
        this.#answer(a, b);
        return;
      case "wellFormed":
        storeWellFormed(guest, a, b, c, d);
    }
  }

  /** Without T2GPA in the host an ATS device is trusted: it may send what addresses it likes as translated. */
  protected override forbiddenBits(_target: Target, register: number): number {
    return !this.#contained && register === R.MISBEHAVIOUR ? R.MISBEHAVE_FORGE_TRANSLATED : 0;
  }

  #command(a: number, b: number, c: number, d: number): void {
    const name = COMMANDS[a % COMMANDS.length]!;
    const id = [...GUEST_IDS, EMULATED_ID][b % (GUEST_IDS.length + 1)]!;
    const flag = (bit: number) => (b >>> bit) & 1;
    const common = { PID: flag(8) === 1 ? c & 7 : 0, PV: flag(8) };
    const fields: Record<CommandName, Record<string, number | bigint>> = {
      "IOTINVAL.VMA": { AV: flag(9), PSCV: flag(10), PSCID: flag(10) === 1 ? c & 3 : 0, ADDR: BigInt(iovaPage(d)) },
      "IOTINVAL.GVMA": { AV: flag(9), ADDR: BigInt(iovaPage(d)) },
      "IOFENCE.C": {
        AV: flag(9),
        PR: 1,
        PW: 1,
        WSI: flag(11) & flag(12),
        DATA: c,
        ADDR: (RAM + BigInt(d & 0xf_fffc)) >> 2n,
      },
      "IODIR.INVAL_DDT": { DV: flag(9), DID: flag(9) === 1 ? id : 0 },
      "IODIR.INVAL_PDT": { DV: 1, DID: id, PID: c & 7 },
      "ATS.INVAL": { ...common, RID: id & 0xffff, DSV: flag(9), ADDR: BigInt(iovaPage(d)) },
      "ATS.PRGR": { ...common, RID: id & 0xffff, PRGI: c & 15, code: [0, 1, 15, d & 15][d % 4]! },
    };
    this.#push(encodeCommand(name, fields[name]));
  }

  /** Stores a command where the guest's own registers say, and rings. */
  #push([word0, word1]: readonly [bigint, bigint]): void {
    const guest = this.#guest;
    const base = guest.read64(REG.cqb);
    const mask = 2 ** (Number(base & 31n) + 1) - 1;
    const tail = guest.read32(REG.cqt);
    const at = ((base >> 10n) << 12n) + BigInt(16 * tail);
    guest.store64(at, word0);
    guest.store64(at + 8n, word1);
    guest.write32(REG.cqt, (tail + 1) & mask);
  }

  protected override target(a: number): Target | null {
    if ((a >>> 24) % 3 === 2) return this.#emulated;
    const plugged = this.devices[a & 1];
    if (plugged === null || plugged === undefined) return null;
    const pasids = this.vm.machine.edus.get(plugged.rid)!.atsTarget !== undefined;
    return { guestId: plugged.guestId, bar: plugged.bar, config: plugged.device, pasids, emulated: false };
  }

  /** A driver's good hour: queues and directory on, everything it holds invalidated. */
  #setUp(choice: number): void {
    const guest = this.#guest;
    guest.write32(REG.cqcsr, 0);
    guest.write32(REG.fqcsr, 0);
    guest.write32(REG.pqcsr, 0);
    guest.enableQueues({ quiet: (choice & 1) === 0, pageRequests: true });
    guest.write64(REG.ddtp, 0n);
    if (choice % 5 === 4) guest.write64(REG.ddtp, 1n);
    else guest.enableDirectory(([3, 3, 2, 1] as const)[choice % 4]!);
    for (const plugged of this.devices) plugged?.device.configWrite(4, 2, 6);
  }

  /** Invalidates all there is; true if the queue did it. */
  #invalidateAll(): boolean {
    const guest = this.#guest;
    guest.write32(REG.cqcsr, 0);
    guest.write64(REG.cqb, ((PLACE.commands >> 12n) << 10n) | 5n);
    guest.write32(REG.cqt, 0);
    guest.write32(REG.cqcsr, 1);
    const before = this.injecting;
    this.#push(encodeCommand("IODIR.INVAL_DDT", {}));
    this.#push(encodeCommand("IOTINVAL.VMA", {}));
    this.#push(encodeCommand("IOFENCE.C", {}));
    // A fence waits for device invalidations; one of a device that never answers ends with cmd_to, and the fence is done after that.
    if (guest.cqh === 2) this.vm.run(2_000_000);
    if ((guest.read32(REG.cqcsr) & (1 << 9)) !== 0) guest.write32(REG.cqcsr, (1 << 9) | 1);
    const done = guest.cqh === 3;
    if (!done && before === 0)
      this.fail(`the queue stands at ${guest.cqh} with status ${guest.read32(REG.cqcsr).toString(16)}`);
    return done;
  }

  /** One burst of a device after everything was invalidated, against the oracle. */
  #checkedDma(a: number, b: number, c: number): void {
    const plugged = this.target(a);
    if (plugged === null || this.injecting > 0) return;
    const guest = this.#guest;
    guest.write32(REG.fqcsr, 0);
    guest.write64(REG.fqb, ((PLACE.faults >> 12n) << 10n) | 3n);
    guest.write32(REG.fqh, 0);
    guest.write32(REG.fqcsr, 0x301);
    // What is under way ends first, and its records go. So does what the other devices have under way: where two contexts share a PSCID
    // and differ in their tables, the IOMMU may answer either from what it cached of the other (specification 3.8).
    const others = this.devices.map((_, index) => this.target(index));
    if (!this.quiet(plugged, [this.#emulated, ...others])) return;
    const processId = plugged.pasids && (a & 8) !== 0 ? (a >>> 8) & 7 : -1;
    plugged.bar.mmioWrite(R.PASID, 4, processId >= 0 ? (R.PASID_VALID | processId) >>> 0 : 0, 0);
    if (!this.#invalidateAll()) return;
    // Interrupts that are on their way arrive before the question is asked.
    this.vm.run(100_000);
    guest.takeFaults();
    const toRam = (a & 2) !== 0;
    const address = (BigInt(iovaPage(b)) << 12n) | BigInt(c & 0xfc0);
    const expected = expectedDma(guest, plugged.guestId, processId, address, toRam);
    if (expected === null) return;
    const before = this.translations;
    eduDma(plugged.bar, address, 64, toRam);
    this.vm.run(100_000);
    // A function that is asleep (power state) sends nothing.
    if (!plugged.emulated && this.translations === before) return;
    const frame = this.lastFrame;
    const outcome = eduOutcome(plugged.bar);
    const faults = guest.takeFaults();
    const seen =
      outcome === R.OUTCOME_DONE
        ? "done"
        : faults.length === 0
          ? outcome === R.OUTCOME_REFUSED
            ? "refused"
            : `outcome ${outcome}`
          : `cause ${faults[0]!.cause}`;
    if (outcome === R.OUTCOME_PASID_DISABLED) return;
    const wanted = expected.cause === 0 ? "done" : expected.reported ? `cause ${expected.cause}` : "refused";
    const where = `DMA of guest device 0x${plugged.guestId.toString(16)} pasid ${processId} at 0x${address.toString(16)}`;
    if (seen !== wanted) this.fail(`${where}: the oracle says ${wanted}, it was ${seen}`);
    const wantedFrame = this.ramFrame + Number((expected.address - RAM) >> 12n);
    if (!plugged.emulated && seen === "done" && wanted === seen && frame !== wantedFrame) {
      this.fail(`${where}: the oracle says page ${wantedFrame - this.ramFrame}, it was ${frame - this.ramFrame}`);
    }
    if (seen === "done" && (a & 16) !== 0) {
      // The page of a well-formed table moves: after an invalidation the device must follow.
      const leaf = PLACE.tables + 0x5000n + 8n * BigInt(iovaPage(b) & 7);
      guest.store64(leaf, guest.load64(leaf) ^ (1n << 10n));
      this.#checkedDma(a & ~16, b, c);
      return;
    }
    const [record] = faults;
    if (record === undefined || seen !== wanted) return;
    const same =
      record.deviceId === plugged.guestId &&
      record.iotval === address &&
      record.iotval2 === 0n &&
      record.processId === processId &&
      record.ttyp === (toRam ? 3 : 2);
    if (!same || faults.length > 1)
      this.fail(
        `${where}: ${faults.length} records, the first ${JSON.stringify(record, (_key, item) => (typeof item === "bigint" ? `0x${item.toString(16)}` : item))}`,
      );
  }

  #replug(a: number, b: number): void {
    const index = a & 1;
    const plugged = this.devices[index];
    const guestId = GUEST_IDS[b % GUEST_IDS.length]!;
    if (plugged !== null && plugged !== undefined) {
      this.vm.unplug(plugged);
      this.devices[index] = null;
      if ((a & 2) !== 0) return;
    }
    if (this.devices.some((other) => other?.guestId === guestId)) return;
    const injecting = this.injecting > 0;
    try {
      this.devices[index] = this.vm.assign(index === 0 ? FIRST : SECOND, guestId);
    } catch (error) {
      if (!injecting) throw error;
    }
  }

  #renumber(a: number, b: number): void {
    const plugged = this.devices[a & 1];
    const guestId = GUEST_IDS[b % GUEST_IDS.length]!;
    if (plugged === null || plugged === undefined || this.devices.some((other) => other?.guestId === guestId)) return;
    const injecting = this.injecting > 0;
    const errno = this.iommu.renumber(plugged.guestId, guestId);
    if (errno < 0) {
      if (!injecting) this.fail(`renumbering failed with ${errno}`);
      this.vm.unplug(plugged);
      this.devices[a & 1] = null;
    } else {
      plugged.guestId = guestId;
    }
  }

  /** Answers a page request that is in the queue. */
  #answer(a: number, b: number): void {
    const guest = this.#guest;
    const head = guest.read32(REG.pqh);
    if (head === guest.read32(REG.pqt)) return;
    const base = guest.read64(REG.pqb);
    const at = ((base >> 10n) << 12n) + BigInt(16 * head);
    const word0 = guest.load64(at);
    const word1 = guest.load64(at + 8n);
    guest.write32(REG.pqh, (head + 1) & (2 ** (Number(base & 31n) + 1) - 1));
    this.#push(
      encodeCommand("ATS.PRGR", {
        RID: Number((word0 >> 40n) & 0xffffn),
        PV: a & 1,
        PID: (a & 1) === 1 ? Number((word0 >> 12n) & 0xf_ffffn) : 0,
        PRGI: Number((word1 >> 3n) & 0x1ffn),
        code: [0, 0, 0, 1, 15][b % 5]!,
      }),
    );
  }

  protected override invariants(): void {
    if (this.iommu.pageRequests.unanswered > 4096) this.fail("page requests pile up");
  }

  /** The kernel's context for the device, as the hardware reads it, is of the kind the guest's IOMMU says. */
  protected override disposition(state: DeviceState<CanonicalContext>): void {
    if (state.lost || state.device.emulated) return;
    const plugged = this.vm.plugged.find(({ device }) => device.handle === state.device.handle);
    if (plugged === undefined) {
      this.fail(`guest device 0x${state.device.guestId.toString(16)} is behind the IOMMU but not in the machine`);
      return;
    }
    const [tc, , , fsc] = this.#instance.contextOf(plugged.rid);
    const nested = state.context;
    const kind = (tc & 1n) === 0n ? "blocked" : fsc >> 60n === 0n ? "bypass" : "nested";
    if (kind !== state.disposition) {
      this.fail(
        `guest device 0x${plugged.guestId.toString(16)} is ${state.disposition}, the hardware's context ${kind}`,
      );
    }
    if (kind === "nested" && nested !== null) {
      const given = (BigInt(nested.fscHigh) << 32n) | BigInt(nested.fscLow);
      if (fsc !== given)
        this.fail(`the hardware has fsc 0x${fsc.toString(16)}, the guest gave 0x${given.toString(16)}`);
    }
  }
}
