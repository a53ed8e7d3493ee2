// What the guest-visible SMMU promises its guest (IHI 0070 §6.3.1–6.3.8), and why: a table with one rule for every field that has a meaning here,
// from the host's identification registers and the machine's configuration. `nestbox caps` prints it.
//
// A field is only promised if everything that uses it can be done: by the hardware, for assigned devices (it reads the guest's context descriptors
// and tables), and by our own walks, for emulated ones. What needs a second stage, or registers that the host keeps, is never the guest's.

import {
  AIDR,
  encodeIdentification,
  IDR0,
  IDR1,
  IDR3,
  IDR5,
  type SmmuFeatures,
} from "../../../host/arch/smmuv3/identification.ts";
import type { CmdqvShape } from "../../../host/arch/smmuv3/parts/cmdqv-registers.ts";
import { CMDQV_PARAM } from "../../../host/arch/smmuv3/tegra241-cmdqv.ts";
import type { FieldSpec, Structure } from "../../../host/base/fields.ts";
import type { CapabilityRow, CapabilitySheet, CommonConfiguration } from "../kind.ts";

/** What a machine's description says about its guest-visible SMMU. */
export interface Smmuv3Configuration extends CommonConfiguration {
  /** Bits of a StreamID, 0 to 32. Default 16: PCI requester ids. */
  readonly sidBits?: number;
  /** Offer PRI with ATS. Default false: Linux's host answers an SMMUv3's page requests itself. */
  readonly pri?: boolean;
  /** GBPA.ABORT after reset (§6.3.14). Default "abort": no device reaches memory before the guest says so. */
  readonly resetMode?: "abort" | "bypass";
}

/** The identification registers of the hardware below, as GET_HW_INFO gives them. */
export interface HardwareIdentification {
  readonly IDR0: bigint;
  readonly IDR1: bigint;
  readonly IDR3: bigint;
  readonly IDR5: bigint;
  readonly AIDR: bigint;
  /** Of interest to people alone. */
  readonly IIDR?: number;
}

/** What rules look at besides the host's field. */
interface RuleContext {
  /** The guest has command queues of the hardware's. */
  readonly ownQueues: boolean;
  /** Other fields of the host's. */
  readonly host: { readonly S2P: number; readonly TTF: number };
  /** STALL_MODEL as the guest has it. */
  readonly stallModel: number;
  readonly configuration: Smmuv3Configuration;
  /** Some device behind this SMMU may stall. */
  readonly stalls: boolean;
}

interface Rule {
  readonly name: string;
  readonly guest: (host: number, context: RuleContext) => number;
  readonly rule: string;
}

/**
 * log2 of the entries of a queue at most. It bounds the work of one write to CMDQ_PROD; Linux needs more than 64 commands in a queue and takes what
 * there is.
 */
export const QUEUE_LIMIT_LOG2 = 13;

/** log2 of the commands in 4 KiB. */
const PAGE_OF_COMMANDS_LOG2 = 8;

const secondStage = "never: the second stage is the host's";
const copied = "the host's: the hardware walks the guest's tables";
const notHere = "never: not part of this model";
const copy = (host: number): number => host;
const never = (): number => 0;

const RULES: readonly (readonly [string, Structure<Record<string, FieldSpec>>, readonly Rule[]])[] = [
  [
    "IDR0",
    IDR0 as unknown as Structure<Record<string, FieldSpec>>,
    [
      { name: "S2P", guest: never, rule: secondStage },
      {
        name: "S1P",
        guest: (host, context) => host & context.host.S2P & (context.host.TTF >> 1),
        rule: "the host's: stage 1 is nested over its stage 2, VMSAv8-64 over VMSAv8-64",
      },
      { name: "TTF", guest: () => 2, rule: "VMSAv8-64, the one format there is" },
      { name: "COHACC", guest: () => 1, rule: "iommufd takes only devices whose DMA is coherent; our own walks are" },
      { name: "BTM", guest: never, rule: "never: TLBI of the guest's processors reaches no hardware SMMU" },
      { name: "HTTU", guest: copy, rule: copied },
      { name: "DORMHINT", guest: never, rule: notHere },
      { name: "Hyp", guest: never, rule: "never: the host sets STE.STRW" },
      {
        name: "ATS",
        guest: (host, { configuration }) => (configuration.ats === false ? 0 : host),
        rule: "the host's, unless the machine turns it off",
      },
      { name: "NS1ATS", guest: never, rule: "reserved without both stages" },
      { name: "ASID16", guest: copy, rule: copied },
      {
        name: "MSI",
        guest: (_, { configuration }) => (configuration.interrupts === "wired" ? 0 : 1),
        rule: "the machine's: the SMMU's own interrupts, and CMD_SYNC's",
      },
      { name: "SEV", guest: never, rule: "never: no processor waits for a CMD_SYNC, it is done within the write" },
      { name: "ATOS", guest: never, rule: notHere },
      {
        name: "PRI",
        guest: (host, { configuration }) => (configuration.pri === true && configuration.ats !== false ? host : 0),
        rule: "the host's where the machine asks for it and has ATS; else 0, as Linux answers page requests itself",
      },
      { name: "VMW", guest: never, rule: secondStage },
      { name: "VMID16", guest: never, rule: secondStage },
      {
        name: "CD2L",
        guest: (host, { configuration }) => (configuration.pasid === false ? 0 : host),
        rule: "the host's: the hardware reads the guest's context descriptors; needs SSIDSIZE",
      },
      { name: "VATOS", guest: never, rule: notHere },
      {
        name: "TTENDIAN",
        guest: (host) => (host === 3 ? 3 : 2),
        rule: "little-endian, unless the host knows big-endian alone",
      },
      { name: "ATSRECERR", guest: never, rule: "never: CR2.REC_CFG_ATS is the host's" },
      {
        name: "STALL_MODEL",
        guest: (host, { stalls }) => (host === 0 && !stalls ? 1 : host),
        rule: "the host's where a device may stall; else terminate only, as no PCI function may",
      },
      { name: "TERM_MODEL", guest: copy, rule: copied },
      { name: "ST_LEVEL", guest: () => 1, rule: "two levels: the guest's stream table is read here" },
      { name: "RME_IMPL", guest: never, rule: notHere },
    ],
  ],
  [
    "IDR1",
    IDR1 as unknown as Structure<Record<string, FieldSpec>>,
    [
      {
        name: "SIDSIZE",
        guest: (_, { configuration }) => Math.min(Math.max(configuration.sidBits ?? 16, 0), 32),
        rule: "the machine's: StreamIDs are the guest's own",
      },
      {
        name: "SSIDSIZE",
        guest: (host, { configuration }) => (configuration.pasid === false ? 0 : host),
        rule: "the host's, unless the machine turns PASIDs off",
      },
      {
        name: "PRIQS",
        guest: (host, { configuration }) => (configuration.pri === true ? Math.min(host, QUEUE_LIMIT_LOG2) : 0),
        rule: "the vIOMMU's own queue, where there is PRI",
      },
      { name: "EVENTQS", guest: () => QUEUE_LIMIT_LOG2, rule: "the vIOMMU's own queue" },
      {
        name: "CMDQS",
        guest: (_, { ownQueues }) => (ownQueues ? PAGE_OF_COMMANDS_LOG2 : QUEUE_LIMIT_LOG2),
        rule: "bounds the work of one write; with queues of the hardware's one page, which the host has in one piece",
      },
      { name: "ATTR_PERMS_OVR", guest: never, rule: "never: the host takes no PRIVCFG and INSTCFG from a guest" },
      {
        name: "ATTR_TYPES_OVR",
        guest: never,
        rule: "never: the host takes no memory types of transactions from a guest",
      },
      { name: "REL", guest: never, rule: "queues and tables are where the guest puts them" },
      { name: "QUEUES_PRESET", guest: never, rule: "queues and tables are where the guest puts them" },
      { name: "TABLES_PRESET", guest: never, rule: "queues and tables are where the guest puts them" },
      { name: "ECMDQ", guest: never, rule: notHere },
    ],
  ],
  [
    "IDR3",
    IDR3 as unknown as Structure<Record<string, FieldSpec>>,
    [
      { name: "HAD", guest: copy, rule: copied },
      { name: "PBHA", guest: never, rule: notHere },
      { name: "XNX", guest: never, rule: secondStage },
      {
        name: "PPS",
        guest: (_, { configuration }) => (configuration.pri === true ? 1 : 0),
        rule: "responses have the PASID of their requests, where there is PRI",
      },
      { name: "MPAM", guest: never, rule: notHere },
      { name: "FWB", guest: never, rule: secondStage },
      { name: "STT", guest: copy, rule: copied },
      { name: "RIL", guest: copy, rule: "the host's: ranges are forwarded as they are" },
      { name: "BBML", guest: copy, rule: copied },
      { name: "E0PD", guest: copy, rule: copied },
      { name: "PTWNNC", guest: never, rule: secondStage },
      { name: "DPT", guest: never, rule: notHere },
      { name: "PASIDTT", guest: never, rule: "never: Translated transactions have no SubstreamID here" },
      { name: "EPAN", guest: copy, rule: copied },
    ],
  ],
  [
    "IDR5",
    IDR5 as unknown as Structure<Record<string, FieldSpec>>,
    [
      {
        name: "OAS",
        guest: (host) => Math.min(host, 5),
        rule: "the host's, at most 48 bits: what stage 1 gives must pass the second stage, whose input size it is",
      },
      { name: "GRAN4K", guest: copy, rule: copied },
      { name: "GRAN16K", guest: copy, rule: copied },
      { name: "GRAN64K", guest: copy, rule: copied },
      { name: "DS", guest: never, rule: "never: addresses of more than 48 bits" },
      { name: "D128", guest: never, rule: notHere },
      { name: "VAX", guest: never, rule: "never: addresses of more than 48 bits" },
      {
        name: "STALL_MAX",
        guest: (host, { stallModel }) => (stallModel === 1 ? 0 : host),
        rule: "the host's where transactions may stall",
      },
    ],
  ],
  [
    "AIDR",
    AIDR as unknown as Structure<Record<string, FieldSpec>>,
    [{ name: "ArchRev", guest: (host) => Math.min(host, 3), rule: "the host's, at most v3.3" }],
  ],
];

/** What emulated devices alone allow: all that our own walks do. */
const OWN_WALKS: Readonly<Record<string, number>> = {
  S1P: 1,
  S2P: 1,
  TTF: 2,
  HTTU: 2,
  ATS: 1,
  PRI: 1,
  PRIQS: QUEUE_LIMIT_LOG2,
  ASID16: 1,
  CD2L: 1,
  TTENDIAN: 2,
  TERM_MODEL: 1,
  SSIDSIZE: 20,
  HAD: 1,
  STT: 1,
  RIL: 1,
  BBML: 2,
  E0PD: 1,
  EPAN: 1,
  OAS: 5,
  GRAN4K: 1,
  GRAN16K: 1,
  GRAN64K: 1,
  STALL_MODEL: 1,
  ArchRev: 3,
};

/** True if the hardware lets software choose whether transactions stall. */
export function hardwareStalls(hardware: HardwareIdentification | null): boolean {
  return hardware !== null && IDR0.get([hardware.IDR0], "STALL_MODEL") === 0n;
}

/** Fields of the hardware's registers, by name. */
export function identificationFields(hardware: HardwareIdentification): Record<string, number> {
  const fields: Record<string, number> = {};
  for (const [register, layout] of RULES) {
    const word = [hardware[register as "IDR0"]];
    for (const name of Object.keys(layout.fields)) fields[name] = Number(layout.get(word, name));
  }
  return fields;
}

/**
 * The guest's features, and the sheet that explains them. `hardware` null: emulated devices only. `stalls`: some device behind this SMMU may stall. `queues`: the guest's
 * CMDQV, null for none.
 */
export function deriveCapabilities(
  hardware: HardwareIdentification | null,
  configuration: Smmuv3Configuration = {},
  stalls = false,
  queues: CmdqvShape | null = null,
): { readonly features: SmmuFeatures; readonly sheet: CapabilitySheet } {
  const host: Record<string, number> = hardware === null ? OWN_WALKS : identificationFields(hardware);
  const rows: CapabilityRow[] = [];
  const features: Record<string, number | boolean> & { STALL_MODEL?: number } = {};
  for (const [register, layout, rules] of RULES) {
    for (const { name, guest, rule } of rules) {
      const { high, low, width } = layout.fields[name]!;
      const stallModel = Number(features.STALL_MODEL ?? 1);
      const value = guest(host[name] ?? 0, {
        host: { S2P: 0, TTF: 0, ...host },
        stallModel,
        configuration,
        stalls,
        ownQueues: queues !== null,
      });
      features[name] = width === 1 ? value !== 0 : value;
      rows.push({ register, name, high, low, host: hardware === null ? null : host[name]!, guest: value, rule });
    }
  }
  const nobody = "0 names nobody: no driver's errata apply to what is none of the hardware's";
  rows.push({ register: "IIDR", name: "IIDR", high: 31, low: 0, host: hardware?.IIDR ?? null, guest: 0, rule: nobody });
  const words = encodeIdentification(features as unknown as SmmuFeatures);
  const registers: Record<string, bigint> = { ...words, IIDR: 0n };
  if (queues !== null) {
    registers.CMDQV_PARAM = queueRows(queues, rows);
  }
  return { features: features as unknown as SmmuFeatures, sheet: { registers, rows } };
}

/** Adds the rows of CMDQV_PARAM, as the guest reads it; the register. */
function queueRows({ version, log2vcmdqs, log2vsids }: CmdqvShape, rows: CapabilityRow[]): bigint {
  const register = "CMDQV_PARAM";
  const words = [0n];
  const fields = [
    ["VER", version, version, "the host's"],
    ["NUM_VCMDQ_LOG2", log2vcmdqs, log2vcmdqs, "queues of one VINTF of the host's, which is the guest's"],
    ["NUM_VINTF_LOG2", null, 0, "one: others are other guests', and the host's own"],
    ["NUM_SID_PER_VM_LOG2", log2vsids, log2vsids, "the host's: so many devices can stand behind it"],
  ] as const;
  for (const [name, host, guest, rule] of fields) {
    const { high, low } = CMDQV_PARAM.fields[name];
    CMDQV_PARAM.set(words, name, BigInt(guest));
    rows.push({ register, name, high, low, host, guest, rule });
  }
  return words[0]!;
}
