// A device of a guest's in a scenario, whatever it hangs on: from the guest's side what its requests go through, from its own side DMA.
// On the PCI bus: vm.ts, ScenarioDevice; on no bus: platform-device.ts.

import { DMA_OK, DMA_STALLED, type DmaPort, NO_PASID } from "../../host/devices/ports.ts";
import type { VirtualIommu } from "../assignment.ts";
import { walkGrid } from "../view/walk-grid.ts";
import type { Walk } from "../view/walks.ts";
import type { DeviceTranslation, FirstStage, GuestDriver, TranslationOffer } from "../viommu/guest-driver.ts";
import type { ContextOf, DefaultKind, Stage1Of, TranslationExtraOf, ViommuKindName } from "../viommu/kinds.ts";
import { checkTranslation, type TranslationOptions } from "./translation.ts";
import type { ScenarioVm } from "./vm.ts";

export interface DmaOptions {
  /** Of the request; left out: none. */
  readonly pasid?: number;
}

export interface DmaResult {
  readonly ok: boolean;
  /** The access waits in the host's IOMMU for an answer to its fault; nothing was moved. */
  readonly stalled: boolean;
  /** What was read; for a write, what was written. */
  readonly bytes: Uint8Array;
}

export abstract class ScenarioEndpoint<K extends ViommuKindName = DefaultKind> {
  readonly vm: ScenarioVm<K>;
  readonly #dma: DmaPort;
  readonly #translation: DeviceTranslation = { whole: null, pasids: new Map(), ats: false, pageRequests: false };

  constructor(vm: ScenarioVm<K>, dma: DmaPort) {
    this.vm = vm;
    this.#dma = dma;
  }

  /** The guest's id of the device at its vIOMMU. */
  abstract get guestId(): number;
  /** The device in the guest, for messages. */
  abstract get name(): string;
  abstract get hostName(): string;
  /** Its transactions can wait. */
  abstract get canStall(): boolean;
  /** null: the VM has no vIOMMU. */
  abstract get viommu(): VirtualIommu | null;

  /**
   * What the device's requests go through from now on: a first stage, "bypass" (the second stage alone) or "blocked". With `pasid` those
   * of that PASID, all others as before; without, those without one ("blocked" then blocks every PASID, too). `ats` and
   * `pageRequests` are the device's as a whole. Throws for what the device, its host or the vIOMMU does not have.
   *
   * Or, of one kind only: the architecture's own structure as it is, and what only that kind's translations have.
   */
  installContext(
    what: FirstStage<Stage1Of<K>> | ContextOf<K>,
    options: TranslationOptions & Partial<TranslationExtraOf<K>> = {} as TranslationOptions &
      Partial<TranslationExtraOf<K>>,
  ): void {
    const iommu = this.vm.iommuOf(this) as GuestDriver;
    if (isOwnStructure(what)) {
      const named = (["ats", "pageRequests", "stalls", "pasid"] as const).find((name) => options[name] !== undefined);
      if (named !== undefined) throw new Error(`${named} goes with a first stage; raw words say it themselves`);
      Object.assign(this.#translation, { whole: null, ats: false, pageRequests: false, stalls: false });
      this.#translation.pasids.clear();
      iommu.installContext(this.guestId, what);
    } else {
      checkTranslation(options, this.#services, iommu.offer);
      this.#note(what as FirstStage, options);
      iommu.installTranslation(this.guestId, this.#translation, options);
    }
    this.vm.settle();
  }

  #note(what: FirstStage, { ats, pageRequests, stalls, pasid }: TranslationOptions): void {
    const translation = this.#translation;
    if (pasid === undefined) {
      translation.whole = what;
      if (what === "blocked") translation.pasids.clear();
      translation.ats = ats === true;
      translation.pageRequests = pageRequests === true;
      translation.stalls = stalls === true;
      return;
    }
    translation.pasids.set(pasid, what);
    if (translation.whole === "blocked") translation.whole = null;
    translation.ats = ats ?? translation.ats;
    translation.pageRequests = pageRequests ?? translation.pageRequests;
    translation.stalls = stalls ?? translation.stalls === true;
  }

  get #services(): TranslationOffer & { readonly name: string } {
    const name = `guest device ${this.name} (host ${this.hostName})`;
    return { name, ...this.vm.host.translationServicesOf(this.hostName), stalls: this.canStall };
  }

  #pasid(of: number | DmaOptions): number {
    const pasid = typeof of === "number" ? of : (of.pasid ?? NO_PASID);
    const { name, pasidBits } = this.#services;
    if (pasid !== NO_PASID && pasidBits === 0) {
      throw new Error(
        `${name} has no PASIDs: in the host's description, an edu needs pasidBits, its IOMMU the capability`,
      );
    }
    if (pasid !== NO_PASID && !(Number.isInteger(pasid) && pasid >= 0 && pasid < 2 ** 20)) {
      throw new RangeError(`${name}: ${pasid} is no PASID`);
    }
    return pasid;
  }

  /** The device reads `length` bytes at `iova`. */
  dmaRead(iova: bigint, length: number, options: number | DmaOptions = {}): DmaResult {
    const pasid = this.#pasid(options);
    const bytes = new Uint8Array(length);
    const status = this.#dma.read(Number(iova >> 12n), Number(iova & 0xfffn), bytes, 0, length, pasid);
    this.vm.settle();
    return { ok: status === DMA_OK, stalled: status === DMA_STALLED, bytes };
  }

  /** The device writes bytes at `iova`. */
  dmaWrite(iova: bigint, bytes: Uint8Array, options: number | DmaOptions = {}): DmaResult {
    const pasid = this.#pasid(options);
    const status = this.#dma.write(Number(iova >> 12n), Number(iova & 0xfffn), bytes, 0, bytes.length, pasid);
    this.vm.settle();
    return { ok: status === DMA_OK, stalled: status === DMA_STALLED, bytes };
  }

  /**
   * The walk the hardware makes for a 4-byte access, as data and as lines to compare with: "DDT 2", "PDT 0", "stage1 1", each with the
   * second-stage levels loaded for it ("stage1 1 <- 3 2 1"), then "final <- 3 2 1"; no lines when the IOTLB answers. A level in parentheses was not
   * loaded: the hardware remembered the pointer from an earlier walk, and began there.
   */
  walk(iova: bigint, options: { write?: boolean; pasid?: number } = {}): { walk: Walk; lines: string[] } {
    const [walk] = this.vm.walksOf(() => {
      if (options.write === true) this.dmaWrite(iova, new Uint8Array(4), options);
      else this.dmaRead(iova, 4, options);
    });
    if (walk === undefined) throw new Error(`device ${this.name} made no access at all: is bus mastering on?`);
    const levelText = (level: number, cached: boolean): string => (cached ? `(${level})` : `${level}`);
    const lines = walkGrid(walk).rows.map(({ table, level, stage2, fetch }) => {
      const what = table === "final" ? "final" : `${table} ${levelText(level, fetch?.cached === true)}`;
      const loads = stage2.map(({ level, cached }) => levelText(level, cached));
      return loads.length === 0 ? what : `${what} <- ${loads.join(" ")}`;
    });
    return { walk, lines };
  }

  /** What the vIOMMU has this device's DMA do now. */
  get disposition(): string {
    for (const { device, disposition } of this.viommu!.viommu.plugged) {
      if (device.guestId === this.guestId) return disposition;
    }
    return "unplugged";
  }
}

/** True for an architecture's own structure: anything but a stage 1 and the two words. */
function isOwnStructure(what: object | string): what is object {
  return typeof what === "object" && !("map" in what);
}
