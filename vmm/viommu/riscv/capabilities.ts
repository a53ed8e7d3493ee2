// What the guest-visible IOMMU promises its guest (RISC-V IOMMU §6.3), and why: a table with one rule for every capability bit,
// from the host's hardware info and the machine's configuration. `nestbox caps` prints it.
//
// A bit is only promised if everything that uses it can be done: by the hardware, for assigned devices (their stage 1 is walked by
// it), and by our own walks, for emulated ones. What needs a second stage, or tables the host keeps, is never the guest's.

import { CAPABILITIES } from "../../../host/arch/riscv/capabilities.ts";
import type { CapabilityRow, CommonConfiguration } from "../kind.ts";

/** What a machine's description says about its guest-visible IOMMU. */
export interface RiscvConfiguration extends CommonConfiguration {
  /** log2 of the number of interrupt vectors, 0..4. Default 2. */
  readonly vectorsLog2?: number;
  /** Offer the debug interface. Default true. */
  readonly debug?: boolean;
  /** ddtp.iommu_mode after reset (§6.2). Default "off": no device reaches memory before the guest says so. */
  readonly resetMode?: "off" | "bare";
}

/** capabilities and fctl of the hardware below, as GET_HW_INFO gives them. */
export interface HardwareCapabilities {
  readonly capabilities: bigint;
  readonly fctl: number;
}

type CapabilityName = keyof typeof CAPABILITIES.fields;

interface Rule {
  readonly name: CapabilityName;
  readonly guest: (host: number, context: RuleContext) => number;
  readonly rule: string;
}

interface RuleContext {
  /** Value of another host field. */
  readonly host: (name: CapabilityName) => number;
  /** Value already given to the guest. */
  readonly given: (name: CapabilityName) => number;
  readonly configuration: RiscvConfiguration;
}

const needsSecondStage = "never: the second stage is the host's";
const copied = "the host's: the hardware walks the guest's tables";

// Rules are applied top to bottom; `given` sees what stands above.
const RULES: readonly Rule[] = [
  { name: "version", guest: () => 0x10, rule: "1.0, what nestbox implements" },
  { name: "Sv32", guest: () => 0, rule: "never: needs fctl.GXL, which is the host's" },
  { name: "Sv39", guest: (host) => host, rule: copied },
  {
    name: "Sv48",
    guest: (host, { given }) => host & given("Sv39"),
    rule: `${copied}; needs Sv39 (§6.3)`,
  },
  {
    name: "Sv57",
    guest: (host, { given }) => host & given("Sv48"),
    rule: `${copied}; needs Sv48 (§6.3)`,
  },
  { name: "Svrsw60t59b", guest: (host) => host, rule: copied },
  { name: "Svpbmt", guest: (host) => host, rule: copied },
  { name: "Sv32x4", guest: () => 0, rule: needsSecondStage },
  { name: "Sv39x4", guest: () => 0, rule: needsSecondStage },
  { name: "Sv48x4", guest: () => 0, rule: needsSecondStage },
  { name: "Sv57x4", guest: () => 0, rule: needsSecondStage },
  { name: "AMO_MRIF", guest: () => 0, rule: "never: MSI tables need a second stage" },
  { name: "MSI_FLAT", guest: () => 0, rule: "never: MSI tables need a second stage" },
  { name: "MSI_MRIF", guest: () => 0, rule: "never: MSI tables need a second stage" },
  { name: "AMO_HWAD", guest: (host) => host, rule: copied },
  {
    name: "ATS",
    guest: (host, { configuration }) => (configuration.ats === false ? 0 : host),
    rule: "the host's, unless the machine turns it off",
  },
  { name: "T2GPA", guest: () => 0, rule: needsSecondStage },
  { name: "END", guest: () => 0, rule: "never: byte order of the host's tables is the host's (fctl.BE)" },
  {
    name: "IGS",
    guest: (_, { configuration }) => ({ msi: 0, wired: 1, both: 2 })[configuration.interrupts ?? "both"],
    rule: "the machine's: the vIOMMU's own interrupts",
  },
  { name: "HPM", guest: () => 0, rule: "never: the hardware's counters count every guest" },
  {
    name: "DBG",
    guest: (_, { configuration }) => (configuration.debug === false ? 0 : 1),
    rule: "the machine's: answered by the vIOMMU's own walk of the guest's tables",
  },
  {
    name: "PAS",
    // A guest-physical address must pass the second stage: its width, not the host's PAS, is the limit.
    guest: (_, { host }) => (host("Sv57x4") === 1 ? 56 : host("Sv48x4") === 1 ? 50 : host("Sv39x4") === 1 ? 41 : 56),
    rule: "input width of the host's widest second stage, at most 56",
  },
  {
    name: "PD8",
    guest: (host, { configuration }) => (configuration.pasid === false ? 0 : host),
    rule: "the host's, unless the machine turns PASIDs off",
  },
  {
    name: "PD17",
    guest: (host, { configuration }) => (configuration.pasid === false ? 0 : host),
    rule: "the host's, unless the machine turns PASIDs off",
  },
  {
    name: "PD20",
    guest: (host, { configuration }) => (configuration.pasid === false ? 0 : host),
    rule: "the host's, unless the machine turns PASIDs off",
  },
  { name: "QOSID", guest: () => 0, rule: "never: RCID and MCID are the host's" },
  { name: "NL", guest: (host) => host, rule: "the host's: IOTINVAL.VMA is forwarded as it is" },
  { name: "S", guest: (host) => host, rule: "the host's: IOTINVAL.VMA is forwarded as it is" },
  { name: "custom", guest: () => 0, rule: "never: unknown meaning" },
];

/** What emulated devices alone allow: all that our own walks do. */
const OWN_WALKS = capabilitiesOf({
  Sv39: 1,
  Sv48: 1,
  Sv57: 1,
  Svpbmt: 1,
  AMO_HWAD: 1,
  ATS: 1,
  PD8: 1,
  PD17: 1,
  PD20: 1,
  NL: 1,
  S: 1,
});

/** A capabilities register with the named fields set; names as in §6.3. */
export function capabilitiesOf(values: Readonly<Partial<Record<CapabilityName, number>>>): bigint {
  const words = [0n];
  for (const [name, value] of Object.entries(values)) CAPABILITIES.set(words, name as CapabilityName, BigInt(value));
  return words[0]!;
}

/** The guest's capabilities register, and the table that explains it. `hardware` null: emulated devices only. */
export function deriveCapabilities(
  hardware: HardwareCapabilities | null,
  configuration: RiscvConfiguration = {},
): { readonly capabilities: bigint; readonly rows: readonly CapabilityRow[] } {
  const source = hardware === null ? OWN_WALKS : BigInt.asUintN(64, hardware.capabilities);
  const hostField = (name: CapabilityName) => Number(CAPABILITIES.get([source], name));
  const given: Partial<Record<CapabilityName, number>> = {};
  const context: RuleContext = { host: hostField, given: (name) => given[name] ?? 0, configuration };
  const rows = RULES.map(({ name, guest, rule }) => {
    const host = hostField(name);
    const value = guest(host, context);
    given[name] = value;
    const { high, low } = CAPABILITIES.fields[name];
    return { name, high, low, host: hardware === null ? null : host, guest: value, rule };
  });
  return { capabilities: capabilitiesOf(given), rows };
}
