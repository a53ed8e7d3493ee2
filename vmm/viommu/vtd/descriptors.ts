// What the descriptors of a guest's invalidation queue do (VT-d §6.5.2): to what is kept here for device models, to the contexts of assigned devices, and
// in the host.
//
//     context, PASID cache    what is meant is marked, and read again when the run settles
//     IOTLB, device TLB       ranges of every device and PASID whose entry is meant (invalidations.ts), given to the host when the run settles
//     wait                    settles, and waits for models that have not completed an invalidation of their own caches
//
// Settling is in that order: invalidations are of what was installed when they came.

import { deviceTlbPages } from "../../../host/arch/vtd/invalidation-descriptors.ts";
import type { VtdCaches } from "../../../host/arch/vtd/parts/caches.ts";
import type { InterruptRemapper } from "../../../host/arch/vtd/parts/interrupt-remapper.ts";
import {
  type DescriptorEffects,
  NOTHING_OUTSTANDING,
  STILL_OUTSTANDING,
} from "../../../host/arch/vtd/parts/invalidation-queue.ts";
import { GRANULARITY_DEVICE, GRANULARITY_GLOBAL } from "../../../host/arch/vtd/registers.ts";
import type { Stateful, StateReader, StateRecord } from "../../../host/base/state.ts";
import { NO_PASID } from "../../../host/devices/ports.ts";
import type { DeviceState, Dispositions } from "../dispositions.ts";
import type { EmulatedAts } from "../emulated-ats.ts";
import type { PageRequests } from "../page-requests.ts";
import type { DeviceContext } from "./device-context.ts";
import { EVERYTHING, type PendingInvalidations } from "./invalidations.ts";
import type { PasidStages } from "./pasid-stages.ts";

/** What is counted, in one order. */
const COUNTED = [
  "context",
  "iotlb",
  "wait",
  "pasidIotlb",
  "pasidCache",
  "deviceTlb",
  "pasidDeviceTlb",
  "interruptEntry",
  "pageGroupResponse",
];

export interface DescriptorParts {
  readonly caches: VtdCaches;
  readonly dispositions: Dispositions<DeviceContext>;
  /** null: no host, nothing but models. */
  readonly pasids: PasidStages | null;
  readonly pending: PendingInvalidations;
  readonly remapper: InterruptRemapper;
  readonly pageRequests: PageRequests;
  /** Device models with ATS. */
  readonly models: readonly EmulatedAts[];
  /** Installs what is marked. */
  readonly install: () => void;
  /** What the host has to report is the guest's to see before a wait completes. */
  readonly relay: () => void;
}

export class Descriptors implements DescriptorEffects, Stateful {
  readonly executed: Record<string, number> = {};
  total = 0;
  readonly #parts: DescriptorParts;
  #marked = false; // not state: within a run of the queue
  /** Invalidations that models have not completed; the source id of one whose time was up, -1: none. */
  #underWay = 0;
  #silent = -1;

  constructor(parts: DescriptorParts) {
    this.#parts = parts;
  }

  #count(name: string): void {
    this.total++;
    this.executed[name] = (this.executed[name] ?? 0) + 1;
  }

  contexts(granularity: number, domain: number, sourceId: number, functionMask: number): void {
    this.#count("context");
    const { caches, dispositions, pasids } = this.#parts;
    caches.invalidateContexts(granularity, domain, sourceId, functionMask);
    pasids?.mark(-1);
    // FM leaves low bits of the function number out: whoever may be meant is read.
    const one = granularity === GRANULARITY_DEVICE && functionMask === 0;
    if (dispositions.mark(one ? sourceId : -1)) this.#marked = true;
  }

  pasids(granularity: number, domain: number, pasid: number): void {
    this.#count("pasidCache");
    const { caches, dispositions, pasids } = this.#parts;
    caches.invalidatePasids(granularity, domain, pasid);
    // With caching mode an entry that appears is told of by the id that it has, which nobody knows yet.
    pasids?.mark(granularity === 1 ? pasid : -1);
    if (dispositions.mark(-1)) this.#marked = true;
  }

  /** By domain: what a first stage has a part in goes whatever its address (§6.5.2.3). */
  translations(granularity: number, domain: number, pfn: number, mask: number, leavesOnly: boolean): void {
    this.#count("iotlb");
    this.#parts.caches.invalidateTranslations(granularity, domain, pfn, mask, leavesOnly);
    this.#forward(granularity === GRANULARITY_GLOBAL ? -1 : domain, -1, 0, EVERYTHING, false);
  }

  pasidTranslations(
    domain: number,
    pasid: number,
    page: boolean,
    pfn: number,
    mask: number,
    leavesOnly: boolean,
  ): void {
    this.#count("pasidIotlb");
    this.#parts.caches.invalidatePasidTranslations(domain, pasid, page, pfn, mask, leavesOnly);
    const order = page ? mask : EVERYTHING;
    this.#forward(domain, pasid, pfn - (pfn % 2 ** order), order, leavesOnly);
  }

  /** A range of all first stages with a domain id and PASID; -1: any. */
  #forward(domain: number, pasid: number, pfn: number, order: number, leavesOnly: boolean): void {
    const { dispositions, pasids, pending } = this.#parts;
    for (const { device, context } of dispositions.all) {
      if (device.emulated) continue;
      const { handle } = device;
      if (pasid <= 0 && context?.disposition === "nested" && (domain < 0 || context.domain === domain))
        pending.add(handle, 0, pfn, order, leavesOnly);
      if (pasid === 0 || pasids === null) continue;
      for (const [installed, stage] of pasids.of(handle)) {
        if (stage.stage1.length === 0 || (pasid > 0 && installed !== pasid)) continue;
        if (domain < 0 || stage.domain === domain) pending.add(handle, installed, pfn, order, leavesOnly);
      }
    }
  }

  interruptEntries(selective: boolean, index: number, mask: number): void {
    this.#count("interruptEntry");
    if (selective) this.#parts.remapper.invalidate(index, mask);
    else this.#parts.remapper.invalidateAll();
  }

  deviceTlb(sourceId: number, pasid: number, pfn: number, size: boolean, allPasids: boolean): boolean {
    const { dispositions, models } = this.#parts;
    const state = dispositions.find(sourceId);
    const pages = deviceTlbPages(pfn, size);
    const whole = pages >= 2 ** EVERYTHING;
    const first = whole ? 0 : pfn - (pfn % pages);
    if (state?.device.emulated === true) {
      const model = models.find(({ deviceId }) => deviceId === sourceId);
      const begun = model?.invalidations.begin(
        first,
        whole ? Infinity : pages,
        pasid < 0 ? NO_PASID : pasid,
        allPasids,
      );
      if (begun === -1) return false;
      if (begun === 1) this.#underWay++;
    } else if (state !== undefined) {
      this.#forwardTo(state, allPasids ? -1 : Math.max(pasid, 0), first, whole ? EVERYTHING : Math.log2(pages));
    }
    this.#count(pasid < 0 ? "deviceTlb" : "pasidDeviceTlb");
    return true;
  }

  /** The host has no call for a device's TLB alone: it drops the range there with the range of the first stage. */
  #forwardTo({ device, context }: DeviceState<DeviceContext>, pasid: number, pfn: number, order: number): void {
    const { pasids, pending } = this.#parts;
    if (pasid <= 0 && context?.disposition === "nested") pending.add(device.handle, 0, pfn, order, false);
    if (pasid === 0 || pasids === null) return;
    for (const [installed, { stage1 }] of pasids.of(device.handle)) {
      if (stage1.length > 0 && (pasid < 0 || installed === pasid)) {
        pending.add(device.handle, installed, pfn, order, false);
      }
    }
  }

  /** A model has completed an invalidation, or its time is up. */
  completed(sourceId: number, timedOut: boolean): void {
    this.#underWay = Math.max(this.#underWay - 1, 0);
    if (timedOut) this.#silent = sourceId & 0xffff;
  }

  /** Nothing is waited for any more. */
  forget(): void {
    this.#underWay = 0;
    this.#silent = -1;
  }

  /** A wait: everything before it has taken effect, in the host too. */
  outstanding(): number {
    this.settle();
    this.#parts.relay();
    const silent = this.#silent;
    if (silent < 0 && this.#underWay > 0) return STILL_OUTSTANDING;
    this.#silent = -1;
    this.#count("wait");
    return silent < 0 ? NOTHING_OUTSTANDING : silent;
  }

  respond(requesterId: number, pasid: number, group: number, code: number): void {
    this.#count("pageGroupResponse");
    // One that nobody waits for is dropped.
    this.#parts.pageRequests.waiting.answer(requesterId, pasid, group, code);
  }

  /** What was collected takes effect. */
  settle(): void {
    this.#parts.pending.flush();
    if (!this.#marked) return;
    this.#marked = false;
    this.#parts.install();
  }

  saveState(): StateRecord {
    return {
      total: this.total,
      executed: Object.fromEntries(COUNTED.map((name) => [name, this.executed[name] ?? null])),
      ...{ underWay: this.#underWay, silent: this.#silent },
    };
  }

  restoreState(state: StateReader): void {
    this.total = state.number("total");
    const executed = state.record("executed");
    for (const name of COUNTED) {
      const count = executed.optional(name, (reader, field) => reader.number(field));
      if (count === null) delete this.executed[name];
      else this.executed[name] = count;
    }
    this.#underWay = state.number("underWay");
    this.#silent = state.number("silent");
  }
}
