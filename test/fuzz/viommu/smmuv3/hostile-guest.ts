// A hostile guest on the whole stack: guest-visible SMMUv3, VFIO, iommufd, kernel driver, modelled hardware. It does operations, and after each one the
// invariants are checked:
//
//   no exception, no hang, nothing that grows without bound
//   a DMA touches frames of the guest's RAM and the message doorbells only, whatever the hardware translated (watched at its result)
//   the host's GERROR never changes: no command of the guest's stops the queue of everybody
//   every device is in one disposition, and the hardware's stream table entry says the same
//   a DMA after the guest invalidated everything does what the oracle says of the guest's structures, and leaves the record it says
//   at the end nothing is left in the host

import { type CommandName, encodeCommand } from "../../../../host/arch/smmuv3/commands.ts";
import type { SmmuFeatures } from "../../../../host/arch/smmuv3/identification.ts";
import { CR0_CMDQEN, CR0_EVENTQEN, REG, REGISTERS } from "../../../../host/arch/smmuv3/registers.ts";
import { STE } from "../../../../host/arch/smmuv3/stream-table-entry.ts";
import * as R from "../../../../host/devices/edu/registers.ts";
import { deviceDataOf } from "../../../../host/kernel/iommu/smmuv3/device-data.ts";
import { AssignedDevice } from "../../../../vmm/vfio/assigned-device.ts";
import type { DeviceState } from "../../../../vmm/viommu/dispositions.ts";
import type { StreamContext } from "../../../../vmm/viommu/smmuv3/stream-context.ts";
import type { Smmuv3Viommu } from "../../../../vmm/viommu/smmuv3/viommu.ts";
import { wrongRecord } from "../../../oracle/smmuv3/harness/compare.ts";
import { EVENTS_LOG2, type Guest, PLACE, RAM } from "../../../vmm/viommu/smmuv3/guest.ts";
import type { Plugged } from "../hosted-vm.ts";
import { FIRST, FULL, HostileVm, SECOND, type Target } from "../hostile-vm.ts";
import type { Kind } from "../operations.ts";
import { expectedDma } from "./expectation.ts";
import {
  EMULATED_ID,
  GUEST_IDS,
  iovaPage,
  LEVEL_1_STREAMS,
  PLATFORM_ID,
  storeContext,
  storeDescriptor,
  storeStream,
  storeWellFormed,
  value,
} from "./hostile-structures.ts";
import { SmmuVm } from "./smmu-vm.ts";

/** Hosts with less, by number. */
const HOSTS: readonly Partial<SmmuFeatures>[] = [
  {},
  { ATS: false },
  { SSIDSIZE: 0 },
  { HTTU: 0, RIL: false },
  { STALL_MODEL: 1 },
  { OAS: 2, GRAN16K: false },
  { ASID16: false, STT: false, CD2L: false, GRAN64K: false },
];

const COMMANDS: readonly CommandName[] = [
  ...(["TLBI_NH_VA", "TLBI_NH_VA", "TLBI_NH_VAA", "TLBI_NH_ASID", "TLBI_NH_ALL", "TLBI_NSNH_ALL"] as const),
  ...(["CFGI_STE", "CFGI_STE", "CFGI_STE_RANGE", "CFGI_CD", "CFGI_CD_ALL", "ATC_INV", "ATC_INV"] as const),
  ...(["SYNC", "SYNC", "SYNC", "PREFETCH_CONFIG", "RESUME", "STALL_TERM", "PRI_RESP"] as const),
  ...(["TLBI_S2_IPA", "TLBI_S12_VMALL", "TLBI_EL2_ALL", "TLBI_EL2_VA"] as const),
];

/** Offsets of registers that do something. */
const OFFSETS = REGISTERS.map((register) => register.offset).filter((offset) => offset >= REG.CR0);

const FORBIDDEN = R.MISBEHAVE_FORGE_TRANSLATED | R.MISBEHAVE_NEVER_COMPLETE;

/** What a device on no bus has of PCI's configuration space. */
const NO_CONFIG: Target["config"] = { configRead: () => 0, configWrite: () => {} };

export class HostileSmmuGuest extends HostileVm<SmmuVm, StreamContext> {
  /** Two PCI functions, and on some hosts a device on no bus. */
  readonly devices: (Plugged | null)[];
  protected readonly registerMask = 0x1_ffff;
  protected readonly offsets = OFFSETS;
  protected readonly iovaPage = iovaPage;
  readonly #guest: Guest;
  readonly #emulated: Target;
  readonly #rids = [FIRST, SECOND];
  readonly #platform: string | null;
  readonly #globalErrors: number;

  constructor(seed: number) {
    const features = HOSTS[seed % HOSTS.length]!;
    const devices = [
      { rid: FIRST, options: FULL },
      { rid: SECOND, options: seed % 2 === 0 ? FULL : {} },
    ];
    // Where the hardware can stall, one guest in two has a device that may be: on no bus.
    const platform = seed % 2 === 0 && features.STALL_MODEL !== 1 ? "edu0" : null;
    const vm = new SmmuVm({ features, devices, ...(platform === null ? {} : { platform }) });
    const stalling = platform === null ? null : vm.assignPlatform(platform, PLATFORM_ID);
    const plugged = [vm.assign(FIRST, GUEST_IDS[0]!), vm.assign(SECOND, GUEST_IDS[1]!), stalling];
    super(vm);
    this.devices = plugged;
    this.#platform = platform;
    this.#guest = vm.guest;
    this.#globalErrors = this.#readGlobalErrors();
    this.#emulated = this.emulate(EMULATED_ID);
  }

  protected override get iommu(): Smmuv3Viommu {
    return this.vm.guest.smmu;
  }

  #readGlobalErrors(): number {
    return this.vm.machine.iommus[0]!.registers.mmioRead(REG.GERROR, 4);
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
        storeStream(guest, a, b, c);
        return;
      case "storeEntry":
        storeDescriptor(guest, a, b, c);
        return;
      case "storeProcess":
        storeContext(guest, a, b, c);
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
      case "renumber":
        this.#replug(a, b);
        return;
      case "configWrite": {
        const size = ([1, 2, 4] as const)[b % 3]!;
        const at = a % 2 === 0 ? a & 0xff : a & 0xfff;
        // Function-level resets are an operation of their own.
        const device = this.devices[c & 1]?.device;
        if (device instanceof AssignedDevice) device.configWrite(at & ~(size - 1), size, value(d, a));
        return;
      }
      case "functionReset":
        this.#functionReset(a);
        return;
      case "answer":
        this.#acknowledge(a);
        return;
      case "wellFormed":
        storeWellFormed(guest, a, b, c);
    }
  }

  /**
   * An assigned device with full ATS (EATS = 1) is trusted: what it forges as translated nothing checks. Nor does it keep completions back here: that is
   * the host's CERROR_ATC_INV_SYNC by design.
   */
  protected override forbiddenBits({ emulated }: Target, register: number): number | null {
    if (emulated) return 0;
    if (register === R.INVALIDATION_DELAY) return null;
    return register === R.MISBEHAVIOUR ? FORBIDDEN : 0;
  }

  #command(a: number, b: number, c: number, d: number): void {
    const which = COMMANDS[a % COMMANDS.length]!;
    const ids = [...GUEST_IDS, EMULATED_ID, PLATFORM_ID];
    const SID = ids[b % ids.length]!;
    const flag = (bit: number) => (b >>> bit) & 1;
    const range = flag(9) === 1 ? { TG: c & 3, NUM: (c >>> 2) & 31, SCALE: (c >>> 7) & 31, TTL: (c >>> 12) & 3 } : {};
    const page = { Address: BigInt(iovaPage(d)) & ((1n << 52n) - 1n), Leaf: flag(8), ...range };
    const ASID = c & 3;
    const VMID = flag(10) === 1 ? c & 0xffff : 0;
    const substream = flag(11) === 1 ? { SSV: 1, SSID: c & 7 } : {};
    const fields: Record<CommandName, Record<string, number | bigint>> = {
      PREFETCH_CONFIG: { SID, ...substream },
      PREFETCH_ADDR: { SID },
      CFGI_STE: { SID, Leaf: flag(8) },
      CFGI_STE_RANGE: { SID, Range: [31, 0, 5, c & 31][d % 4]! },
      CFGI_CD: { SID, SSID: c & 7, Leaf: flag(8) },
      CFGI_CD_ALL: { SID },
      TLBI_NH_ALL: { VMID },
      TLBI_NH_ASID: { VMID, ASID },
      TLBI_NH_VA: { VMID, ASID, ...page },
      TLBI_NH_VAA: { VMID, ...page },
      TLBI_EL2_ALL: {},
      TLBI_EL2_ASID: { ASID },
      TLBI_EL2_VA: { ASID, ...page },
      TLBI_EL2_VAA: page,
      TLBI_S12_VMALL: { VMID },
      TLBI_S2_IPA: { VMID, ...page },
      TLBI_NSNH_ALL: {},
      ATC_INV: { SID, ...substream, Global: flag(12), Size: [52, 0, 3, c & 63][d % 4]!, Address: page.Address },
      PRI_RESP: { SID, ...substream, PRGIndex: c & 15, Resp: d & 3 },
      RESUME: { SID, STAG: c & 3, Ac: flag(8), Ab: flag(9) },
      STALL_TERM: { SID },
      SYNC: {
        CS: [0, 1, 2, d & 3][c % 4]!,
        MSIData: c,
        MSIAddress: flag(9) === 1 ? (RAM + BigInt(d & 0xf_fffc)) >> 2n : 0n,
      },
    };
    this.#push(encodeCommand(which, fields[which]));
  }

  /** Stores a command where the guest's own registers say, and rings. */
  #push([word0, word1]: readonly [bigint, bigint]): void {
    const guest = this.#guest;
    const base = guest.read64(REG.CMDQ_BASE);
    const log2 = Math.min(Number(base & 31n), 13);
    const size = BigInt(Math.max(32, 16 << log2));
    const prod = guest.read32(REG.CMDQ_PROD);
    const address = base & 0xff_ffff_ffff_ffe0n;
    const at = address - (address % size) + BigInt(16 * (prod & ((1 << log2) - 1)));
    if (at >= RAM && at + 16n <= RAM + 0x10_0000n) {
      guest.store64(at, word0);
      guest.store64(at + 8n, word1);
    }
    guest.write32(REG.CMDQ_PROD, (prod + 1) & ((2 << log2) - 1));
  }

  protected override target(a: number): Target | null {
    const which = (a >>> 24) % 4;
    if (which === 2) return this.#emulated;
    return this.#targetOf(this.devices[which === 3 && this.#platform !== null ? 2 : a & 1] ?? null);
  }

  #targetOf(plugged: Plugged | null): Target | null {
    if (plugged === null) return null;
    const { guestId, bar, device, hostName } = plugged;
    if (!(device instanceof AssignedDevice)) return { guestId, bar, config: NO_CONFIG, pasids: false, emulated: false };
    const edu = [...this.vm.machine.edus.values()].find((each) => each.name === hostName);
    return { guestId, bar, config: device, pasids: edu?.atsTarget !== undefined, emulated: false };
  }

  #functionReset(a: number): void {
    const plugged = this.devices[a % 3];
    const errno = plugged?.device.reset();
    // The machine tells the vIOMMU of a function's reset by itself (AssignedDevice.onReset).
    if (plugged !== null && plugged !== undefined && errno === 0) this.#guest.smmu.deviceReset(plugged.guestId);
  }

  /** A driver's good hour: queues and stream table on, everything it holds invalidated. */
  #setUp(choice: number): void {
    const guest = this.#guest;
    guest.bringUp({ enable: false, messages: (choice & 1) === 0 });
    if (choice % 4 === 3) {
      guest.store64(LEVEL_1_STREAMS, PLACE.streams | 7n);
      guest.store64(LEVEL_1_STREAMS + 8n, 0n);
      guest.write64(REG.STRTAB_BASE, LEVEL_1_STREAMS);
      guest.write32(REG.STRTAB_BASE_CFG, 8 | (6 << 6) | (1 << 16));
    }
    guest.write32(REG.GERRORN, guest.read32(REG.GERROR));
    if (choice % 5 === 4) guest.write32(REG.GBPA, 0x8000_1000);
    else guest.write32(REG.CR0, CR0_CMDQEN | CR0_EVENTQEN | 1 | (choice & 16));
    for (const plugged of this.devices) this.#targetOf(plugged)?.config.configWrite(4, 2, 6);
  }

  /** Takes what is in the event queue, or acknowledges errors, or answers what stalls. */
  #acknowledge(a: number): void {
    const guest = this.#guest;
    if (this.#platform !== null && (a & 6) === 0) {
      for (const STAG of [0, 1, 2])
        this.#push(encodeCommand("RESUME", { SID: PLATFORM_ID, STAG, Ac: (a >>> 3) & 1, Ab: 1 }));
      this.vm.run(50_000);
      return;
    }
    if ((a & 1) === 0) guest.write32(REG.GERRORN, guest.read32(REG.GERROR));
    else guest.write32(REG.EVENTQ_CONS, guest.read32(REG.EVENTQ_PROD));
  }

  /** Invalidates all there is; true if the queue did it. */
  #invalidateAll(): boolean {
    const guest = this.#guest;
    const cr0 = guest.read32(REG.CR0);
    guest.write32(REG.CR0, cr0 & ~(CR0_CMDQEN | CR0_EVENTQEN));
    guest.write32(REG.GERRORN, guest.read32(REG.GERROR));
    guest.write64(REG.CMDQ_BASE, PLACE.commands | 4n);
    guest.write32(REG.CMDQ_PROD, 0);
    guest.write32(REG.CMDQ_CONS, 0);
    guest.write64(REG.EVENTQ_BASE, PLACE.events | BigInt(EVENTS_LOG2));
    guest.write32(REG.EVENTQ_PROD, 0);
    guest.write32(REG.EVENTQ_CONS, 0);
    guest.write32(REG.CR0, (cr0 & 0x11) | CR0_CMDQEN | CR0_EVENTQEN);
    this.#push(encodeCommand("CFGI_STE_RANGE", { Range: 31 }));
    this.#push(encodeCommand("TLBI_NSNH_ALL", {}));
    this.#push(encodeCommand("SYNC", {}));
    // A CMD_SYNC waits for ATS invalidations that stood in the queue before.
    if (guest.cons === 2) this.vm.run(2_000_000);
    guest.write32(REG.GERRORN, guest.read32(REG.GERROR));
    const done = guest.cons === 3;
    if (!done && this.injecting === 0) this.fail(`the queue stands at ${guest.cons}`);
    return done;
  }

  #checkedDma(a: number, b: number, c: number): void {
    const guest = this.#guest;
    this.checkedDma(a, b, c, {
      ram: RAM,
      // What is under way ends first, and its records go. So does what the other devices have under way: where two contexts share an ASID and differ in
      // their tables, the SMMU may answer either from what it cached of the other (§3.17). What stalls is ended: it waits for the guest.
      quiet: (target) =>
        this.quiet(target, [this.#emulated, ...this.devices.map((each) => this.#targetOf(each))], ({ guestId }) => {
          if (guestId === PLATFORM_ID) this.#functionReset(2);
        }),
      pasid: ({ pasids }) => (pasids && (a & 8) !== 0 ? (a >>> 8) & 7 : -1),
      invalidateAll: () => this.#invalidateAll(),
      takeRecords: () => guest.takeRecords(),
      expected: (target, ssid, address, write) => {
        const stalls = target.guestId === PLATFORM_ID;
        return expectedDma(guest, { ...target, stalls }, ssid, address, write);
      },
      wrongRecord,
      named: (record) => `event 0x${(record[0]! & 0xffn).toString(16)}`,
      movePage: (choice) => {
        const leaf = PLACE.tables + 0x5000n + 8n * BigInt(iovaPage(choice) & 7);
        guest.store64(leaf, guest.load64(leaf) ^ (1n << 12n));
      },
    });
  }

  #replug(a: number, b: number): void {
    const index = this.#platform !== null && (a & 12) === 12 ? 2 : a & 1;
    const plugged = this.devices[index];
    const guestId = index === 2 ? PLATFORM_ID : GUEST_IDS[b % GUEST_IDS.length]!;
    if (plugged !== null && plugged !== undefined) {
      this.vm.unplug(plugged);
      this.devices[index] = null;
      if ((a & 2) !== 0) return;
    }
    if (this.devices.some((other) => other?.guestId === guestId)) return;
    const injecting = this.injecting > 0;
    try {
      this.devices[index] =
        index === 2 ? this.vm.assignPlatform(this.#platform!, guestId) : this.vm.assign(this.#rids[index]!, guestId);
    } catch (error) {
      if (!injecting) throw error;
    }
  }

  protected override invariants(): void {
    const errors = this.#readGlobalErrors();
    if (errors !== this.#globalErrors) this.fail(`the host's GERROR became 0x${errors.toString(16)}`);
    const { waiting } = this.iommu.stalls;
    if (waiting > 64) this.fail(`${waiting} stalled transactions`);
  }

  /** The kernel's entry for the device, as the hardware reads it, is of the kind the guest's SMMU says. */
  protected override disposition(state: DeviceState<StreamContext>): void {
    if (state.lost || state.device.emulated) return;
    const where = `guest device 0x${state.device.guestId.toString(16)}`;
    const plugged = this.vm.plugged.find(({ device }) => device.handle === state.device.handle);
    if (plugged === undefined) {
      this.fail(`${where} is behind the SMMU but not in the machine`);
      return;
    }
    const known = this.vm.machine.kernel.iommu.deviceNamed(plugged.hostName)!;
    const entry = deviceDataOf(known).smmu.streamEntryOf(known);
    const config = (entry[0]! & 1n) === 0n ? 0n : STE.get(entry, "Config");
    const kind = config < 4n ? "blocked" : config === 6n ? "bypass" : "nested";
    if (kind !== state.disposition) this.fail(`${where} is ${state.disposition}, the hardware's entry ${kind}`);
    const { context } = state;
    if (kind !== "nested" || context === null) return;
    const given = (BigInt(context.word1) << 32n) | BigInt(context.word0);
    // All but Config, which is the guest's 101 there and 111 here.
    if ((entry[0]! | 0xen) !== (given | 0xen))
      this.fail(`${where}: the hardware has 0x${entry[0]!.toString(16)}, the guest gave 0x${given.toString(16)}`);
  }
}
