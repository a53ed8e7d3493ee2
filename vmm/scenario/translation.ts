// What a scenario may ask of translation for one device, checked against what device and IOMMU can do.

import type { TranslationOffer } from "../viommu/guest-driver.ts";

/** What a scenario may ask for with a first stage. */
export interface TranslationOptions {
  /** The device may ask for translations ahead and use them (PCIe ATS). */
  readonly ats?: boolean;
  /** The device may ask for pages that are missing (PCIe PRI); takes ATS with it. */
  readonly pageRequests?: boolean;
  /** Transactions that fault wait until the guest has answered (Arm SMMUv3: CD.S); of a platform device that can. */
  readonly stalls?: boolean;
  /** For requests with this PASID, 1 and up. Left out: for those without, which are PASID 0. */
  readonly pasid?: number;
}

/** Throws unless `device` and the guest's IOMMU can do what is asked: a scenario that goes on without would test nothing. */
export function checkTranslation(
  asked: TranslationOptions,
  device: TranslationOffer & { readonly name: string },
  iommu: TranslationOffer,
): void {
  const { name } = device;
  const lacks = (what: string, option: string): never => {
    throw new Error(`${name} has no ${what}: the device's model or the IOMMU before it lacks it (${option})`);
  };
  const refuses = (what: string): never => {
    throw new Error(
      `${name} cannot use ${what}: the guest's IOMMU does not offer it (the VM's configuration, or the host's IOMMU)`,
    );
  };
  if (asked.ats === true || asked.pageRequests === true) {
    if (!device.ats) lacks("ATS", "in the host's description, an edu needs ats: true");
    if (!iommu.ats) refuses("ATS");
  }
  if (asked.pageRequests === true) {
    if (!device.pageRequests) lacks("page requests", "in the host's description, an edu needs ats and pri: true");
    if (!iommu.pageRequests) refuses("page requests");
  }
  if (asked.stalls === true) {
    if (device.stalls !== true) lacks("stalls", "a platform device, with canStall: true in the host's description");
    if (iommu.stalls !== true) refuses("stalls");
  }
  if (asked.pasid === undefined) return;
  if (device.pasidBits === 0) lacks("PASIDs", "in the host's description, an edu needs pasidBits");
  if (iommu.pasidBits === 0) refuses("PASIDs");
  const most = 2 ** Math.min(device.pasidBits, iommu.pasidBits) - 1;
  if (!Number.isInteger(asked.pasid) || asked.pasid < 1 || asked.pasid > most) {
    throw new RangeError(`${name}: PASID ${asked.pasid} is none of its own, which are 1 to ${most}`);
  }
}
