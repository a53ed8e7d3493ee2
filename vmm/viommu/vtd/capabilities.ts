// What the guest-visible unit promises its guest (VT-d §11.4.2, §11.4.3), and why: a table with one rule for every field, from the host's hardware info and
// the machine's configuration. `nestbox caps` prints it.
//
// First stage alone: FSTS without SSTS and NEST, so that a guest's driver has no choice but PASID entries that the host can nest (PGTT 1) or pass
// through (PGTT 4). The hardware walks the guest's first stage, so what a table may contain is the host's; queue, fault records and events are ours.

import {
  CAP,
  decodeCapabilities,
  ECAP,
  encodeCapabilities,
  type VtdFeatures,
} from "../../../host/arch/vtd/capabilities.ts";
import type { CapabilityRow, CapabilitySheet, CommonConfiguration } from "../kind.ts";

/** What a machine's description says about its guest-visible unit. */
export interface VtdConfiguration extends CommonConfiguration {
  /** CAP.CM: a guest tells of entries that appear. Default true; without it assigned devices stay as they are until something is taken away. */
  readonly cachingMode?: boolean;
}

/** CAP and ECAP of the hardware below, as GET_HW_INFO gives them. */
export interface HardwareCapabilities {
  readonly cap: bigint;
  readonly ecap: bigint;
}

/** Bits of a guest-physical address that a structure or table of the guest's may hold: MGAW, and HAW as firmware would say it. */
export const GUEST_ADDRESS_BITS = 48;
const FAULT_RECORDS = 8;
const RECORDS_AT = 0x22;
const INVALIDATION_REGISTERS_AT = 0x0f;

interface Rule {
  readonly name: keyof VtdFeatures;
  readonly guest: (host: VtdFeatures, configuration: VtdConfiguration) => number | boolean;
  readonly rule: string;
}

const own = "the unit's own: kept here, not by the hardware";
const secondStage = "never: the second stage is the host's";
const walked = "the host's: the hardware walks the guest's first stage";
/** log2 of the PASIDs offered at most, less one (PSS): all of a device's are read when its guest says that any may have changed. */
const MOST_PSS = 9;

const ats = (host: VtdFeatures, { ats: wanted }: VtdConfiguration): boolean => host.DT && wanted !== false;
const pageRequests = (host: VtdFeatures, configuration: VtdConfiguration): boolean =>
  host.PRS && ats(host, configuration);
const pasids = (host: VtdFeatures, { pasid }: VtdConfiguration): boolean => host.PASID && pasid !== false;

const RULES: readonly Rule[] = [
  { name: "ND", guest: () => 6, rule: `${own}: 65,536 domain ids, which never reach the hardware` },
  { name: "RWBF", guest: () => false, rule: own },
  {
    name: "CM",
    guest: (_, { cachingMode }) => cachingMode !== false,
    rule: "the machine's: entries that appear are told of, or assigned devices would never get theirs",
  },
  {
    name: "SAGAW",
    guest: () => 4,
    rule: "48 bits, for legacy mode, in which assigned devices stay blocked; nothing a guest in scalable mode uses",
  },
  { name: "MGAW", guest: () => GUEST_ADDRESS_BITS - 1, rule: "48 bits: what the host's second stage takes at least" },
  { name: "ZLR", guest: () => true, rule: own },
  { name: "FRO", guest: () => RECORDS_AT, rule: own },
  { name: "SSLPS", guest: () => 0, rule: secondStage },
  { name: "PSI", guest: () => true, rule: own },
  { name: "NFR", guest: () => FAULT_RECORDS - 1, rule: own },
  { name: "MAMV", guest: () => 48, rule: `${own}: ranges of any size are forwarded` },
  { name: "DWD", guest: () => true, rule: own },
  { name: "DRD", guest: () => true, rule: own },
  { name: "FS1GP", guest: ({ FS1GP }) => FS1GP, rule: walked },
  { name: "PI", guest: () => false, rule: "never: interrupts are the machine's" },
  { name: "FS5LP", guest: ({ FS5LP }) => FS5LP, rule: walked },
  { name: "ESIRTPS", guest: () => true, rule: own },
  { name: "ESRTPS", guest: () => true, rule: own },
  { name: "C", guest: () => true, rule: "guest RAM is coherent" },
  { name: "QI", guest: () => true, rule: own },
  {
    name: "DT",
    guest: ats,
    rule: "the host's, unless the machine says no: the host has ATS on in every device that can, and drops its TLB with each range of a first stage",
  },
  { name: "IR", guest: () => true, rule: `${own}: an assigned device's interrupt comes here first` },
  { name: "EIM", guest: () => true, rule: `${own}: 32 bits name a receiver of the machine's` },
  { name: "PT", guest: () => true, rule: "pass-through is the second stage alone" },
  { name: "SC", guest: ({ SC }) => SC, rule: "the host's" },
  { name: "IRO", guest: () => INVALIDATION_REGISTERS_AT, rule: own },
  { name: "MHMV", guest: () => 15, rule: own },
  { name: "MTS", guest: () => false, rule: secondStage },
  { name: "NEST", guest: () => false, rule: secondStage },
  { name: "PRS", guest: pageRequests, rule: "the host's, with ATS: they come by its fault queue" },
  {
    name: "SRS",
    guest: (host, configuration) => host.SRS && pasids(host, configuration),
    rule: "the host's, with PASIDs: supervisor requests come with those only",
  },
  { name: "NWFS", guest: () => false, rule: own },
  { name: "EAFS", guest: ({ EAFS }) => EAFS, rule: walked },
  {
    name: "PSS",
    guest: (host, configuration) => (pasids(host, configuration) ? Math.min(host.PSS, MOST_PSS) : 0),
    rule: "the host's, at most 10 bits: all of a device's are read when anything may have changed",
  },
  {
    name: "PASID",
    guest: pasids,
    rule: "the host's, unless the machine says no: each is attached by itself. Not for devices that share an iommu group",
  },
  { name: "DIT", guest: () => false, rule: own },
  { name: "PDS", guest: pageRequests, rule: `${own}: what the host has to report is queued before a wait completes` },
  { name: "SMTS", guest: () => true, rule: "what the host can nest are scalable mode's PASID entries" },
  { name: "SSADS", guest: () => false, rule: secondStage },
  { name: "SSTS", guest: () => false, rule: secondStage },
  { name: "FSTS", guest: () => true, rule: "what the host nests" },
  { name: "SMPWCS", guest: ({ SMPWCS }) => SMPWCS, rule: walked },
  { name: "RPS", guest: () => false, rule: "RID_PASID is 0, as Linux has it" },
  { name: "ADMS", guest: () => true, rule: own },
  { name: "RPRIVS", guest: () => false, rule: "never: RID_PASID is a user's" },
];

/** What emulated devices alone allow: all that our own walks do. */
const OWN_WALKS = {
  ...{ FS1GP: true, FS5LP: true, SC: true, EAFS: true, SMPWCS: true },
  ...{ DT: true, PRS: true, PASID: true, PSS: MOST_PSS, SRS: true },
} as VtdFeatures;

/** The guest's features, and the table that explains them. `hardware` null: emulated devices only. */
export function deriveCapabilities(
  hardware: HardwareCapabilities | null,
  configuration: VtdConfiguration = {},
): { readonly features: VtdFeatures; readonly sheet: CapabilitySheet } {
  const host = hardware === null ? OWN_WALKS : decodeCapabilities(hardware.cap, hardware.ecap);
  const given: Record<string, number | boolean> = {};
  const rows = RULES.map(({ name, guest, rule }): CapabilityRow => {
    const value = guest(host, configuration);
    given[name] = value;
    const ofCap = name in CAP.fields;
    const { high, low } = ofCap
      ? CAP.fields[name as keyof typeof CAP.fields]
      : ECAP.fields[name as keyof typeof ECAP.fields];
    return {
      register: ofCap ? "CAP" : "ECAP",
      ...{ name, high, low, rule },
      host: hardware === null ? null : Number(host[name]),
      guest: Number(value),
    };
  });
  const features = given as unknown as VtdFeatures;
  return { features, sheet: { registers: { ...encodeCapabilities(features) }, rows } };
}
