// All address-translation caches of one IOMMU, and what each invalidation command does to them (§3.8, §4.1).

import { deviceIdBits } from "../../../arch/riscv/device-context.ts";
import { DDTP_1LVL, REG } from "../../../arch/riscv/registers.ts";
import { type AddressTag, AddressTags } from "../../../base/caches/address-tags.ts";
import { Requesters } from "../../../base/caches/requesters.ts";
import { Stamps } from "../../../base/caches/stamps.ts";
import { StructureCache, SubstructureCache } from "../../../base/caches/structure-cache.ts";
import { TableCache } from "../../../base/caches/table-cache.ts";
import { TranslationCache } from "../../../base/caches/translation-cache.ts";
import type { Stateful, StateRecord } from "../../../base/state.ts";
import { CachedDevice, CachedProcess, type CachedSpace, HOST, SECOND_STAGE_ONLY } from "./context-cache.ts";
import type { HardwareState } from "./hardware-state.ts";

export class TranslationCaches implements Stateful {
  readonly devices: StructureCache<CachedDevice>;
  readonly processes: SubstructureCache<CachedProcess>;
  readonly requesters = new Requesters<CachedDevice, CachedSpace>();
  readonly translations: TranslationCache;
  readonly messages: TranslationCache;
  /** Pointers to tables of both stages; null: none are kept. */
  readonly tables: TableCache | null;
  readonly tags: AddressTags;
  readonly #state: HardwareState;
  readonly #stamps: Stamps;

  constructor(state: HardwareState) {
    const sizes = state.configuration.caches;
    const stamps = new Stamps();
    this.#state = state;
    this.#stamps = stamps;
    this.tags = new AddressTags(stamps);
    this.devices = new StructureCache(sizes.devices, stamps, this.requesters, () => new CachedDevice(this.tags));
    this.processes = new SubstructureCache(sizes.processes, this.requesters, () => new CachedProcess(this.tags));
    this.translations = new TranslationCache(sizes.translations, this.tags);
    this.messages = new TranslationCache(sizes.messages, this.tags);
    this.tables = sizes.tables === 0 ? null : new TableCache(sizes.tables, this.tags);
    stamps.onExhausted = () => this.clear();
  }

  /** Before a context is loaded: its tags must fit. */
  makeRoom(): void {
    if (this.tags.full) this.clear();
  }

  /** As after reset. */
  clear(): void {
    this.tags.dropAll();
    this.devices.clear();
    this.processes.clear();
    this.translations.clear();
    this.messages.clear();
    this.tables?.clear();
  }

  /** True if a device_id is not wider than the directory's mode allows. In Off and Bare no directory limits it. */
  deviceIdFits(deviceId: number): boolean {
    const mode = this.#state.reg(REG.ddtp) & 0xf;
    if (mode < DDTP_1LVL) return true;
    return deviceId < 1 << deviceIdBits(mode - 1, this.#state.rules.MSI_FLAT);
  }

  /** True if a process_id is not wider than the widest process directory supported. */
  processIdFits(processId: number): boolean {
    const { PD20, PD17, PD8 } = this.#state.rules;
    return processId < 1 << (PD20 ? 20 : PD17 ? 17 : PD8 ? 8 : 0);
  }

  /** IODIR.INVAL_DDT: one device (its process contexts go with it), or -1 all. */
  invalidateDevice(deviceId: number): void {
    if (deviceId < 0) this.devices.invalidateAll();
    else this.devices.invalidate(deviceId);
  }

  /** IODIR.INVAL_PDT. */
  invalidateProcess(deviceId: number, processId: number): void {
    const device = this.devices.find(deviceId);
    // A device context that is not cached has no process contexts either: they are found by its stamp.
    if (device !== null) this.processes.invalidate(device.stamp, processId);
  }

  /**
   * IOTINVAL.VMA. `gscid` -1: the host's spaces (second stage Bare); `pscid` -1: all address spaces, globals included; `pfn` -1: all
   * addresses. `range`: the frame number carries a size (S bit, §9.3). `nonLeaf`: with an address, pointers to tables on the way to it go too.
   */
  invalidateFirstStage(gscid: number, pscid: number, pfn: number, range: boolean, nonLeaf: boolean): void {
    const pages = range && pfn >= 0 ? napotPages(pfn) : 1;
    const everything = pfn < 0 || pages > 2 ** 51;
    const first = everything ? 0 : pfn - (pfn % pages);
    const tags = this.tags;
    if (pscid >= 0) {
      for (let tag = tags.first(gscid, pscid); tag !== null; tag = tag.next) {
        if (everything) tags.invalidate(tag);
        else this.#invalidatePages(tag, first, pages, nonLeaf);
      }
      return;
    }
    for (let tag = tags.firstLive(gscid); tag !== null; tag = tag.nextLive) {
      if (tag.space === SECOND_STAGE_ONLY) continue;
      if (everything) tags.invalidate(tag);
      else this.#invalidatePages(tag, first, pages, nonLeaf);
    }
  }

  #invalidatePages(tag: AddressTag, first: number, pages: number, nonLeaf: boolean): void {
    this.translations.invalidatePages(tag, first, pages, 0, 0);
    if (nonLeaf) this.tables?.invalidatePages(tag, first, pages);
  }

  /**
   * IOTINVAL.GVMA. -1: every virtual machine. An address narrows nothing: entries go from IOVA to system-physical addresses, and
   * which of them used a guest-physical page is not kept, so all of the machine's are dropped (§4.1.1 allows it).
   */
  invalidateSecondStage(gscid: number): void {
    const tags = this.tags;
    if (gscid >= 0) {
      tags.invalidateMachine(gscid);
      return;
    }
    for (let machine = tags.firstMachine; machine !== null; machine = machine.next)
      if (machine.machine !== HOST) tags.invalidateAll(machine);
    // Of the host's those that MSI tables take part in.
    for (let tag = tags.firstLive(HOST); tag !== null; tag = tag.nextLive) if (tag.variant !== 0) tags.invalidate(tag);
  }

  saveState(): StateRecord {
    return {};
  }

  restoreState(): void {}

  /** Tags before the contexts that have them. */
  stateParts(): Iterable<readonly [string, Stateful]> {
    return [
      ["stamps", this.#stamps],
      ["tags", this.tags],
      ["devices", this.devices],
      ["processes", this.processes],
      ["translations", this.translations],
      ["messages", this.messages],
      ...(this.tables === null ? [] : [["tables", this.tables] as const]),
    ];
  }
}

/** Pages of the naturally aligned range that a frame number with S = 1 encodes: lowest 0 bit at X means 2^(X+1). */
export function napotPages(pfn: number): number {
  const low = ~pfn;
  const high = ~(pfn * 2 ** -32);
  const at = low !== 0 ? 31 - Math.clz32(low & -low) : 63 - Math.clz32(high & -high);
  return POWERS[at + 1]!;
}

const POWERS = Float64Array.from({ length: 65 }, (_, exponent) => 2 ** exponent);
