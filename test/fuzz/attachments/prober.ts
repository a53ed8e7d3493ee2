// A function that does whatever DMA it is told, keeps the translations it is given (PCIe 6.0 §10.2) until it is told to forget them
// (§10.3), and asks for pages (§10.4). It is well-behaved but for one thing: it may ask without leave.

import {
  AtsCapability,
  PasidCapability,
  PriCapability,
} from "../../../host/devices/capabilities/address-translation.ts";
import { PciEndpoint } from "../../../host/devices/pci-function.ts";
import { ATS_SUCCESS, type AtsTarget, DMA_OK } from "../../../host/devices/ports.ts";

export interface ProberAbilities {
  readonly ats: boolean;
  readonly pri: boolean;
  readonly pasid: boolean;
}

/** A kept translation; `target` is where a translated request goes. */
export interface Kept {
  readonly pasid: number;
  readonly pfn: number;
  readonly target: number;
}

export interface Response {
  readonly group: number;
  readonly code: number;
}

export class Prober extends PciEndpoint {
  readonly abilities: ProberAbilities;
  readonly atsTarget?: AtsTarget;
  /** PRG Responses taken, oldest first. */
  responses: Response[] = [];
  readonly #ats: AtsCapability | null;
  readonly #pri: PriCapability | null;
  #kept: Kept[] = [];

  constructor(name: string, abilities: ProberAbilities) {
    super({ name, vendorId: 0x1234, deviceId: 0x0001, revision: 0, classCode: 0x00ff00, prefixes: abilities.pasid });
    this.abilities = abilities;
    this.#ats = abilities.ats ? new AtsCapability(32, () => this.#forgetAll()) : null;
    this.#pri = abilities.pri ? new PriCapability(512, false, () => {}) : null;
    for (const one of [abilities.pasid ? new PasidCapability(20) : null, this.#ats, this.#pri]) {
      if (one !== null) this.addCapability(one);
    }
    if (abilities.ats) {
      this.atsTarget = {
        invalidate: (pfn, pages, pasid, everywhere) => {
          this.#kept = this.#kept.filter(
            (one) => one.pfn < pfn || one.pfn >= pfn + pages || !(everywhere ? one.pasid >= 0 : one.pasid === pasid),
          );
          return true;
        },
        pageResponse: (_pasid, group, code) => {
          this.responses.push({ group, code });
        },
      };
    }
  }

  protected onReset(): void {
    this.#forgetAll();
  }

  #forgetAll(): void {
    this.#kept = [];
  }

  get kept(): readonly Kept[] {
    return this.#kept;
  }

  get atsEnabled(): boolean {
    return this.#ats?.enabled === true;
  }

  get priEnabled(): boolean {
    return this.#pri?.mayRequest(0) === true;
  }

  /** Memory and bus master on: the firmware's or the guest's business, not a fuzzer's of attachments. */
  master(): void {
    this.configWrite(4, 2, 6);
  }

  /** An untranslated write at the start of a page; false: refused. */
  write(pfn: number, pasid: number, bytes: Uint8Array): boolean {
    return this.dmaWrite(pfn, 0, bytes, 0, bytes.length, pasid) === DMA_OK;
  }

  /** Asks for a translation to write by, and keeps it. */
  translate(pfn: number, pasid: number): void {
    const { ats } = this.ports.dma;
    if (ats === undefined || !this.atsEnabled) return;
    if (ats.translate(pfn, pasid, false, false, false) !== ATS_SUCCESS) return;
    const { translation } = ats;
    if (!translation.write || translation.untranslatedOnly) return;
    const pages = 2 ** (translation.sizeLog2 - 12);
    this.#kept = this.#kept.filter((one) => one.pfn !== pfn || one.pasid !== pasid);
    this.#kept.push({ pasid, pfn, target: translation.pfn - (translation.pfn % pages) + (pfn % pages) });
  }

  writeKept({ target, pasid }: Kept, bytes: Uint8Array): boolean {
    return this.ports.dma.ats?.writeTranslated(target, 0, bytes, 0, bytes.length, pasid) === DMA_OK;
  }

  ask(pfn: number, pasid: number, group: number, last: boolean): void {
    this.ports.dma.ats?.pageRequest(pfn, pasid, group, 1 | (last ? 4 : 0));
  }
}
