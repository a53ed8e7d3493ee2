// What the PASIDs of assigned devices go through: each an attachment of its own in the host, beside that of the device's requests without one
// (../dispositions.ts). The host has no table of the guest's in its place, as for other kinds: every entry is read here, and given to it alone.
//
//     the guest tells of a change ─▶ mark ─▶ sync(device): entry by entry, same as installed? nothing; else one host call
//
// What is absent is blocked; what the host refuses, too. Devices that share an iommu group have no PASIDs: whose they are the host could not tell.

import { FAULT_RTA_MODE } from "../../../host/arch/vtd/fault-reasons.ts";
import type { GpaPfn } from "../../../host/base/address.ts";
import { ACCESS_OK, type MemoryPort } from "../../../host/base/memory.ts";
import { bytesOf, type Stateful, type StateReader, type StateRecord } from "../../../host/base/state.ts";
import type { DeviceHandle, ViommuHost } from "../host-port.ts";
import type { PluggedDevice } from "../kind.ts";
import type { DeviceContexts } from "./device-context.ts";

/** An entry that is installed. */
export interface PasidStage {
  /** HWPT_ALLOC data of a first stage; empty: passed through. */
  readonly stage1: Uint8Array;
  readonly domain: number;
  /** PRE of the context: page requests are the guest's to answer. */
  readonly pageRequests: boolean;
  /** The host could not even block it: nothing is known about its DMA. */
  readonly lost?: true;
}

const PRESENT = 1;
const STAGE1_BYTES = 24;
const ENTRY_BYTES = 64;
const LOST: PasidStage = { stage1: new Uint8Array(0), domain: -1, pageRequests: false, lost: true };
/** What a call of the host's costs beside a look at an entry. */
const CALL_WORK = 64;
const NONE: ReadonlyMap<number, PasidStage> = new Map();

export class PasidStages implements Stateful {
  /** An entry cannot be what it says (`cause`, 0: it can now), told each time it is read. */
  onWrong: (device: PluggedDevice, pasid: number, cause: number, silent: boolean) => void = () => {}; // not state: wiring
  /** Units of work done so far: an entry looked at is one, a call of the host's some more. */
  work = 0; // not state: within one run of the queue
  readonly #host: ViommuHost;
  readonly #contexts: DeviceContexts;
  readonly #memory: MemoryPort<GpaPfn>;
  readonly #report: (message: string) => void;
  /** PASIDs below this are offered; and of each device those that it has. */
  readonly #limit: number;
  readonly #limits = new Map<DeviceHandle, number>(); // not state: asked for when it is wanted
  readonly #installed = new Map<DeviceHandle, Map<number, PasidStage>>();
  // not state, to the blank line: within one run of the queue
  #all = false;
  readonly #marked = new Set<number>();

  constructor(
    host: ViommuHost,
    contexts: DeviceContexts,
    memory: MemoryPort<GpaPfn>,
    limit: number,
    report: (message: string) => void,
  ) {
    this.#report = report;
    this.#host = host;
    this.#contexts = contexts;
    this.#memory = memory;
    this.#limit = limit;
  }

  /** What a device's PASIDs have. */
  of(device: DeviceHandle): ReadonlyMap<number, PasidStage> {
    return this.#installed.get(device) ?? NONE;
  }

  /** PASID entries of all devices have changed: one, or (-1) any. */
  mark(pasid: number): void {
    if (pasid < 0) this.#all = true;
    else this.#marked.add(pasid);
  }

  /** Marks have been seen to. */
  settled(): void {
    this.#all = false;
    this.#marked.clear();
  }

  /** A device has gone, with all that it had in the host. */
  forget(device: DeviceHandle): void {
    this.#installed.delete(device);
    this.#limits.delete(device);
  }

  /** The host takes PASIDs of a device that has none, and does nothing with them. */
  #limitOf(device: DeviceHandle): number {
    const known = this.#limits.get(device);
    if (known !== undefined) return known;
    const info = this.#host.hwInfo(device);
    const has = typeof info === "number" || info.maxPasidLog2 === 0 ? 0 : 2 ** info.maxPasidLog2;
    const limit = Math.min(has, this.#limit);
    this.#limits.set(device, limit);
    return limit;
  }

  /** Nothing of a PASID passes any more; one that the host does not block is tried again whenever the device's are read. */
  block({ handle, name, hostName }: PluggedDevice, pasid: number): void {
    this.work += CALL_WORK;
    const errno = this.#host.setBlocked(handle, pasid);
    if (errno >= 0) {
      this.#installed.get(handle)?.delete(pasid);
      return;
    }
    this.#keep(handle, pasid, LOST);
    this.#report(`PASID ${pasid} of device ${name} (host ${hostName ?? "?"}) could not be blocked`);
  }

  /** The device was taken out of the host: what of it has gone with that is no news to the host. */
  blockAll(device: PluggedDevice): void {
    for (const pasid of [...this.of(device.handle).keys()]) this.block(device, pasid);
  }

  #keep(device: DeviceHandle, pasid: number, stage: PasidStage): void {
    let pasids = this.#installed.get(device);
    if (pasids === undefined) this.#installed.set(device, (pasids = new Map()));
    pasids.set(pasid, stage);
  }

  /** Reads what is marked of a device's, and gives the host what is new. */
  sync(device: PluggedDevice): void {
    if (this.#limit === 0 || device.emulated || device.stream !== undefined) return;
    const own = this.#limitOf(device.handle);
    if (own === 0) return;
    const directory = this.#contexts.pasidDirectory(device);
    const limit = Math.min(this.#contexts.pasidLimit, own);
    if (!this.#all) {
      const again = [...this.of(device.handle)].filter(([, { lost }]) => lost === true).map(([pasid]) => pasid);
      for (const pasid of new Set([...this.#marked, ...again]))
        if (pasid > 0) this.#read(device, pasid, pasid < limit ? directory : -1);
      return;
    }
    for (const pasid of this.of(device.handle).keys()) {
      if (directory < 0 || pasid >= limit) this.#read(device, pasid, -1);
    }
    if (directory < 0) return;
    for (let first = 0; first < limit; first += 64) this.#readTable(device, first, directory);
  }

  /** The 64 PASIDs that one entry of the directory leads to. Whatever is absent and was costs one load. */
  #readTable(device: PluggedDevice, first: number, directory: number): void {
    const memory = this.#memory;
    const installed = this.of(device.handle);
    this.work += 16;
    const readable = memory.load64((directory + (first >>> 15)) as GpaPfn, ((first >>> 6) & 511) << 3) === ACCESS_OK;
    const present = readable && (memory.lo & PRESENT) !== 0;
    const table = (memory.hi >>> 0) * 0x100000 + (memory.lo >>> 12);
    for (let i = first === 0 ? 1 : 0; i < 64; i++) {
      const found =
        present && memory.load32(table as GpaPfn, i * ENTRY_BYTES) === ACCESS_OK && (memory.lo & PRESENT) !== 0;
      if (found || installed.has(first + i)) this.#read(device, first + i, directory);
    }
  }

  /** One entry; `directory` -1: there is none. */
  #read(device: PluggedDevice, pasid: number, directory: number): void {
    const contexts = this.#contexts;
    this.work++;
    const stage = directory < 0 ? null : contexts.readPasid(pasid, directory);
    const before = this.of(device.handle).get(pasid);
    const { handle } = device;
    if (stage === null) {
      if (before !== undefined) this.block(device, pasid);
      this.onWrong(device, pasid, directory < 0 ? 0 : contexts.cause, contexts.silent);
      return;
    }
    if (before === undefined || before.lost === true || !sameStage(before, stage)) {
      this.work += CALL_WORK;
      const errno =
        stage.stage1.length === 0
          ? this.#host.setBypass(handle, pasid)
          : this.#host.setNested(handle, stage.stage1, pasid, stage.pageRequests);
      if (errno < 0) {
        // The host may hold what was there before.
        this.block(device, pasid);
        this.onWrong(device, pasid, FAULT_RTA_MODE, contexts.silent);
        return;
      }
    }
    this.#keep(handle, pasid, stage);
    this.onWrong(device, pasid, 0, false);
  }

  saveState(): StateRecord {
    return {
      installed: [...this.#installed].map(([device, pasids]) => ({
        device,
        pasids: [...pasids].map(([pasid, { stage1, domain, pageRequests, lost }]) => {
          return { pasid, stage1: bytesOf(stage1), domain, pageRequests, lost: lost === true };
        }),
      })),
    };
  }

  restoreState(state: StateReader): void {
    this.#installed.clear();
    for (const each of state.records("installed")) {
      const pasids = new Map<number, PasidStage>();
      for (const saved of each.records("pasids")) {
        const stage1 = saved.bytes("stage1").slice();
        if (stage1.length !== 0 && stage1.length !== STAGE1_BYTES) saved.fail("stage1", "is no first stage");
        const [domain, pageRequests] = [saved.number("domain"), saved.boolean("pageRequests")];
        const stage = { stage1, domain, pageRequests };
        pasids.set(saved.number("pasid"), saved.boolean("lost") ? LOST : stage);
      }
      this.#installed.set(each.number("device"), pasids);
    }
  }
}

/** To the host: by which domain id the guest calls it is nothing to that. */
export function sameStage(a: PasidStage, b: PasidStage): boolean {
  return (
    a.stage1.length === b.stage1.length &&
    (a.stage1.length === 0 || a.pageRequests === b.pageRequests) &&
    a.stage1.every((byte, i) => byte === b.stage1[i])
  );
}
