// A hostile guest on the whole stack: guest-visible VT-d unit, VFIO, iommufd, kernel driver, modelled hardware. It does operations, and after each one the
// invariants are checked:
//
//   no exception, no hang, nothing that grows without bound
//   a DMA touches frames of the guest's RAM and the host's interrupt files only, whatever the hardware translated (watched at its result)
//   the host's queue never stops: no IQE, no ICE
//   every device and PASID is in one disposition, and the PASID entry that the hardware reads says the same
//   a DMA after the guest invalidated everything does what the oracle says of the guest's structures, and leaves the record it says
//   at the end nothing is left in the host

import type { VtdFeatures } from "../../../../host/arch/vtd/capabilities.ts";
import { encodeDescriptor } from "../../../../host/arch/vtd/invalidation-descriptors.ts";
import * as R from "../../../../host/devices/edu/registers.ts";
import { deviceDataOf } from "../../../../host/kernel/iommu/vtd/device-data.ts";
import type { AssignedDevice } from "../../../../vmm/vfio/assigned-device.ts";
import type { DeviceState } from "../../../../vmm/viommu/dispositions.ts";
import type { DeviceContext } from "../../../../vmm/viommu/vtd/device-context.ts";
import type { VtdViommu } from "../../../../vmm/viommu/vtd/viommu.ts";
import { wrongRecord } from "../../../oracle/vtd/harness/compare.ts";
import type { Plugged } from "../hosted-vm.ts";
import { FIRST, FULL, HostileVm, SECOND, type Target } from "../hostile-vm.ts";
import type { Kind } from "../operations.ts";
import { expectedDma } from "./expectation.ts";
import {
  EMULATED_ID,
  GUEST_IDS,
  iovaPage,
  storeContext,
  storeEntry,
  storeInterruptEntry,
  storePasid,
  storeWellFormed,
  value,
  WELL_FORMED,
} from "./hostile-structures.ts";
import { DOORBELLS, IRE, PLACE, QIE, RAM, REG, SIRTP, SRTP, TE, type VtdGuest, VtdVm } from "./vtd-vm.ts";

/** Hosts with less, by number. */
const HOSTS: readonly Partial<VtdFeatures>[] = [
  {},
  { DT: false, PRS: false, PDS: false },
  { PASID: false },
  { FS1GP: false, FS5LP: false },
  { SC: false, SMPWCS: false, EAFS: false },
  { PSS: 5, SRS: false, RPRIVS: false },
  { ND: 2, MAMV: 9 },
  { SSADS: false },
];

const DESCRIPTORS = [
  ...(["iotlb", "pasidIotlb", "pasidIotlb", "pasidCache", "context", "wait", "wait", "deviceTlb"] as const),
  ...(["pasidDeviceTlb", "interruptEntry", "pageGroupResponse"] as const),
];

/** Offsets of registers that do something, IVA, IOTLB and fault records included. */
const OFFSETS = [
  ...Object.values(REG).filter((offset) => offset >= REG.GCMD),
  ...[REG.IQT, REG.IQT, REG.GCMD, 0x44, 0xf0, 0xf8, 0xfc, 0x2c, 0x22c, 0x23c],
];

const ITE = 0x40;
/** Whose entries are looked at after each operation: those that the guest's structures fill. */
const CHECKED_PASIDS = 8;

const FORBIDDEN = R.MISBEHAVE_FORGE_TRANSLATED | R.MISBEHAVE_NEVER_COMPLETE;

export class HostileVtdGuest extends HostileVm<VtdVm, DeviceContext> {
  readonly devices: (Plugged | null)[];
  protected readonly registerMask = 0xfff;
  protected readonly offsets = OFFSETS;
  protected readonly iovaPage = iovaPage;
  readonly #guest: VtdGuest;
  readonly #emulated: Target;
  readonly #rids = [FIRST, SECOND];

  constructor(seed: number) {
    const devices = [
      { rid: FIRST, options: FULL },
      { rid: SECOND, options: seed % 2 === 0 ? FULL : {} },
    ];
    const vm = new VtdVm({ features: HOSTS[seed % HOSTS.length]!, devices });
    const plugged = [vm.assign(FIRST, GUEST_IDS[0]!), vm.assign(SECOND, GUEST_IDS[1]!)];
    super(vm, DOORBELLS);
    this.devices = plugged;
    this.#guest = vm.guest;
    this.#emulated = this.emulate(EMULATED_ID);
  }

  protected override get iommu(): VtdViommu {
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
        storeContext(guest, a, b, c);
        return;
      case "storeEntry":
        storeEntry(guest, a, b, c);
        return;
      case "storeProcess":
        if (a % 8 === 0) storeInterruptEntry(guest, b, c);
        else storePasid(guest, a, b, c);
        return;
      case "command":
        this.#descriptor(a, b, c, d);
        return;
      case "rawCommand":
        guest.push(
          (BigInt(a) << 32n) | BigInt(b & (c % 2 === 0 ? 0xffff_ffff : 0xfff)),
          (BigInt(c) << 32n) | BigInt(d),
        );
        return;
      case "checkedDma":
        this.#checkedDma(a, b, c);
        return;
      case "setUp":
        this.#setUp(a);
        return;
      case "replug":
      case "renumber":
        this.#replug(a, b);
        return;
      case "configWrite": {
        const size = ([1, 2, 4] as const)[b % 3]!;
        const at = a % 2 === 0 ? a & 0xff : a & 0xfff;
        this.#function(c)?.configWrite(at & ~(size - 1), size, value(d, a));
        return;
      }
      case "functionReset":
        this.#function(a)?.reset();
        return;
      case "answer":
        this.#acknowledge(a, b);
        return;
      case "wellFormed":
        storeWellFormed(guest, a, b, c);
    }
  }

  /** Linux: ssads_supported. */
  get #tracksDirty(): boolean {
    const { SSADS, SMPWCS } = this.vm.unit.configuration.features;
    return SSADS && SMPWCS;
  }

  #function(a: number): AssignedDevice | undefined {
    return this.devices[a & 1]?.device as AssignedDevice | undefined;
  }

  /** An assigned device with ATS is trusted: what it forges as translated nothing checks, and completions that it keeps back are the host's to time out. */
  protected override forbiddenBits({ emulated }: Target, register: number): number | null {
    if (emulated) return 0;
    if (register === R.INVALIDATION_DELAY) return null;
    return register === R.MISBEHAVIOUR ? FORBIDDEN : 0;
  }

  #descriptor(a: number, b: number, c: number, d: number): void {
    const which = DESCRIPTORS[a % DESCRIPTORS.length]!;
    const ids = [...GUEST_IDS, EMULATED_ID];
    const SID = ids[b % ids.length]!;
    const flag = (bit: number) => (b >>> bit) & 1;
    const DID = 1 + (c & 3);
    const PASID = c & 8 ? c & 7 : 0;
    const ADDR = BigInt(iovaPage(d)) & ((1n << 52n) - 1n);
    const AM = [0, 0, 1, 9, 18, c & 63][(c >>> 4) % 6]!;
    const fields = {
      context: { G: (c >>> 8) & 3, DID, SID, FM: c & 3 },
      iotlb: { G: (c >>> 8) & 3, DID, AM, IH: flag(8), ADDR, DW: flag(9), DR: flag(10) },
      pasidIotlb: { G: flag(11) === 1 ? (c >>> 8) & 3 : 2 + flag(9), DID, PASID, AM, IH: flag(8), ADDR },
      pasidCache: { G: (c >>> 8) & 3, DID, PASID },
      deviceTlb: { SID, S: flag(8), ADDR: flag(9) === 1 ? (1n << 51n) - 1n : ADDR },
      pasidDeviceTlb: { SID, PASID, S: flag(8), G: flag(10), ADDR: flag(9) === 1 ? (1n << 51n) - 1n : ADDR },
      interruptEntry: { G: flag(8), IM: c & 31, IIDX: d & 0x1f },
      pageGroupResponse: { RID: SID, PP: flag(8), PASID, PRGI: c & 15, code: [0, 1, 15, c & 15][d % 4]! },
      wait: {
        ...{ IF: flag(8), SW: flag(9), FN: flag(10), PD: flag(11), STDATA: c },
        STADDR: flag(12) === 1 ? BigInt(d) : (RAM + BigInt(d & 0xf_fffc)) >> 2n,
      },
    } satisfies Record<string, Record<string, number | bigint>>;
    const [first, second] = encodeDescriptor(which, fields[which]);
    this.#guest.push(first, second);
  }

  protected override target(a: number): Target | null {
    return (a >>> 24) % 4 === 2 ? this.#emulated : this.#targetOf(this.devices[a & 1] ?? null);
  }

  #targetOf(plugged: Plugged | null): Target | null {
    if (plugged === null) return null;
    const { guestId, bar, device, hostName } = plugged;
    const edu = [...this.vm.machine.edus.values()].find((each) => each.name === hostName);
    const config = device as AssignedDevice;
    return { guestId, bar, config, pasids: edu?.atsTarget !== undefined, emulated: false };
  }

  /** A driver's good hour: queue, tables and translation on. */
  #setUp(choice: number): void {
    const guest = this.#guest;
    if (!guest.freshQueue()) return;
    const mode = choice % 16 === 7 ? [0n, 0x800n, 0xc00n][(choice >>> 4) % 3]! : 0x400n;
    guest.write64(REG.RTADDR, PLACE.root | mode);
    guest.command(SRTP);
    guest.write64(
      REG.IRTA,
      PLACE.interrupts | BigInt([3, 3, 0, 15][(choice >>> 8) & 3]! | (((choice >>> 10) % 2) * 0x800)),
    );
    guest.command(SIRTP);
    if (choice % 3 === 0) guest.command(IRE);
    guest.write64(REG.PQA, PLACE.requests | BigInt((choice >>> 12) % 6 === 0 ? 1 : 0));
    guest.write64(REG.PQH, 0n);
    guest.write32(REG.PRS, 3);
    for (const event of [REG.FECTL, REG.IECTL, REG.PECTL]) {
      guest.write32(event + 4, choice & 0xff);
      guest.write32(event + 8, choice % 5 === 0 ? 0xfee0_0000 : 0x2800_0000);
      guest.write32(event, 0);
    }
    if (choice % 11 !== 10) guest.command(TE);
    for (const plugged of this.devices) this.#targetOf(plugged)?.config.configWrite(4, 2, 6);
  }

  /** Takes fault records, or clears errors, or takes page requests, or answers groups. */
  #acknowledge(a: number, b: number): void {
    const guest = this.#guest;
    switch (a % 4) {
      case 0:
        guest.takeRecords();
        return;
      case 1:
        guest.write32(REG.FSTS, 0x70);
        return;
      case 2:
        guest.write64(REG.PQH, BigInt(guest.read32(REG.PQT)));
        guest.write32(REG.PRS, 3);
        return;
      default:
        for (const RID of [...GUEST_IDS.slice(0, 2), EMULATED_ID]) {
          const code = [0, 1, 15][b % 3]!;
          const [first, second] = encodeDescriptor("pageGroupResponse", { RID, PRGI: (b >>> 8) & 3, code });
          guest.push(first, second);
        }
    }
  }

  /** Invalidates all there is; true if the queue did it. */
  #invalidateAll(): boolean {
    const guest = this.#guest;
    // An invalidation of a model's own cache that stood in the queue before ends, or is given up.
    this.vm.run(2_000_000);
    const on = guest.freshQueue();
    // In a mode that there is not, nothing is fetched.
    const mode = (guest.latchedRoot >> 10n) & 3n;
    if (!on || mode === 2n) {
      if (!on && this.injecting === 0) this.fail("the queue does not go off");
      return false;
    }
    guest.store64(PLACE.status, 0n);
    guest.push(...encodeDescriptor("context", { G: 1 }));
    if (mode === 1n) guest.push(...encodeDescriptor("pasidCache", { G: 3 }));
    guest.push(...encodeDescriptor("iotlb", { G: 1 }));
    const wait = encodeDescriptor("wait", { SW: 1, STDATA: 77, STADDR: PLACE.status >> 2n });
    guest.push(...wait);
    // A model that was silent once aborts the next wait (§6.5.2.10).
    if ((guest.read32(REG.FSTS) & ITE) !== 0) {
      guest.write32(REG.FSTS, ITE);
      guest.push(...wait);
    }
    const done = (guest.load64(PLACE.status) & 0xffff_ffffn) === 77n;
    if (!done && this.injecting === 0)
      this.fail(
        `the queue stands at 0x${guest.read32(REG.IQH).toString(16)}, FSTS 0x${guest.read32(REG.FSTS).toString(16)}`,
      );
    return done;
  }

  #checkedDma(a: number, b: number, c: number): void {
    const guest = this.#guest;
    this.checkedDma(a, b, c, {
      ram: RAM,
      quiet: (target) => this.quiet(target, [this.#emulated, ...this.devices.map((each) => this.#targetOf(each))]),
      // PASID 0 is what requests without one use, and the host lets it be named whatever PASIDE of the guest's context says.
      pasid: ({ pasids }) => (pasids && (a & 8) !== 0 ? 1 + ((a >>> 8) % 7) : -1),
      invalidateAll: () => this.#invalidateAll(),
      takeRecords: () => guest.takeRecords(),
      expected: (target, pasid, address, write) =>
        expectedDma(guest, { ...target, passesPasids: !this.#tracksDirty }, pasid, address, write),
      wrongRecord,
      named: ([, high]) => `reason 0x${((high >> 32n) & 0xffn).toString(16)}`,
      movePage: (choice) => {
        const leaf = WELL_FORMED + 0x3000n + 8n * BigInt(iovaPage(choice) & 7);
        guest.store64(leaf, guest.load64(leaf) ^ (1n << 12n));
      },
    });
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
      this.devices[index] = this.vm.assign(this.#rids[index]!, guestId);
    } catch (error) {
      if (!injecting) throw error;
    }
  }

  protected override invariants(): void {
    const status = this.vm.unit.registers.mmioRead(REG.FSTS, 4);
    if ((status & 0x30) !== 0) this.fail(`the host's FSTS became 0x${status.toString(16)}`);
    const { waiting } = this.iommu.pageRequests;
    if (waiting.size > 4096) this.fail(`${waiting.size} unanswered page requests`);
    if ((this.#guest.read32(REG.GSTS) & QIE) === 0) return;
    const size = 4096 << (this.#guest.read32(REG.IQA) & 7);
    if (this.#guest.read32(REG.IQH) >= size) this.fail("IQH is beyond its queue");
  }

  /** The kernel's entries for the device and its PASIDs, as the hardware reads them, are of the kind the guest's unit says. */
  protected override disposition(state: DeviceState<DeviceContext>): void {
    if (state.lost || state.device.emulated) return;
    const where = `guest device 0x${state.device.guestId.toString(16)}`;
    const plugged = this.vm.plugged.find(({ device }) => device.handle === state.device.handle);
    if (plugged === undefined) {
      this.fail(`${where} is behind the unit but not in the machine`);
      return;
    }
    const known = this.vm.machine.kernel.iommu.deviceNamed(plugged.hostName)!;
    const table = deviceDataOf(known).pasids!;
    const installed = this.iommu.pasids!.of(state.device.handle);
    for (let pasid = 0; pasid < CHECKED_PASIDS; pasid++) {
      const entry = table.read(pasid);
      const stage = pasid === 0 ? state.context : (installed.get(pasid) ?? null);
      if (pasid !== 0 && installed.get(pasid)?.lost === true) continue;
      const kind = entry === null ? "blocked" : ((entry[0]! >> 6n) & 7n) === 3n ? "nested" : "bypass";
      const wanted = stage === null ? "blocked" : stage.stage1.length > 0 ? "nested" : "bypass";
      if (kind !== wanted) this.fail(`${where} PASID ${pasid} is ${wanted}, the hardware's entry ${kind}`);
      if (entry === null || kind !== "nested" || stage === null) continue;
      const root = new DataView(stage.stage1.buffer, stage.stage1.byteOffset).getBigUint64(8, true);
      if ((entry[2]! & ~0xfffn) !== root)
        this.fail(
          `${where} PASID ${pasid}: the hardware has 0x${entry[2]!.toString(16)}, the guest gave 0x${root.toString(16)}`,
        );
    }
  }
}
