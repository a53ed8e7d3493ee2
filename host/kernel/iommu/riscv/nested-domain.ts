// Nested domains: the guest's own first stage over a parent second stage. The guest's device-context words arrive as written by the
// guest (host/uapi/riscv-nesting.ts); what may be in them stands in one mask, and what the hardware would call misconfigured (§3.1.4)
// is refused here, so that it never reaches the hardware.
//
//     tc.V = 0                 blocked: the hardware's own record (cause 258) is relayed when a transaction arrives
//     V = 1, fsc Bare          bypass: second stage only
//     V = 1, fsc not Bare      the guest's page table, or its process directory (PDTV), walked in guest-physical space

import {
  deviceContextMisconfiguration,
  halvesOf,
  TC_DPE,
  TC_DTF,
  TC_EN_ATS,
  TC_EN_PRI,
  TC_PDTV,
  TC_PRPR,
  TC_SADE,
  TC_SBE,
  TC_SXL,
  TC_T2GPA,
  TC_V,
} from "../../../arch/riscv/device-context.ts";
import type { Stateful, StateReader, StateRecord } from "../../../base/state.ts";
import { EINVAL, ENOENT } from "../../../uapi/errno.ts";
import type { AttachmentList } from "../attachments.ts";
import type { IommuDevice, NestedDomain } from "../driver.ts";
import { type Context, INVALID_CONTEXT, restoredContext } from "./context-switch.ts";
import { deviceDataOf, moveDevice, type RiscvDomain } from "./device-data.ts";
import type { RiscvDriver } from "./driver.ts";
import type { RiscvPagingDomain } from "./paging-domain.ts";
import type { RiscvViommu } from "./viommu.ts";

/**
 * Bits of tc a guest may set. Not: T2GPA and GADE (they concern the host's second stage), bits 31:24 (custom), 63:12 (reserved).
 * Whether the hardware supports what a bit asks for is checked besides.
 */
export const GUEST_TC_BITS =
  TC_V | TC_EN_ATS | TC_EN_PRI | TC_DTF | TC_PDTV | TC_PRPR | TC_SADE | TC_DPE | TC_SBE | TC_SXL;
/** Bits of ta a guest may set: PSCID. RCID and MCID are the host's. */
export const GUEST_TA_BITS = 0xfffff000n;
/** Bits of fsc a guest may set: MODE and PPN. */
export const GUEST_FSC_BITS = (0xfn << 60n) | ((1n << 44n) - 1n);

/** The guest's words as the hardware may get them, or -EINVAL: what a vIOMMU treats as misconfigured (259). */
export function checkGuestContext(
  tc: bigint,
  fsc: bigint,
  ta: bigint,
  viommu: RiscvViommu,
): { readonly tc: bigint; readonly fsc: bigint; readonly ta: bigint } | number {
  // With V = 0 the rest is free (§3.1.3) and means nothing.
  if ((tc & 1n) === 0n) return { tc: 0n, fsc: 0n, ta: 0n };
  if ((tc & ~BigInt(GUEST_TC_BITS)) !== 0n || (ta & ~GUEST_TA_BITS) !== 0n || (fsc & ~GUEST_FSC_BITS) !== 0n) {
    return -EINVAL;
  }
  const { rules } = viommu.iommu;
  const words: bigint[] = [tc | hostBitsFor(tc, viommu), viommu.secondStage, ta, fsc, 0n, 0n, 0n, 0n];
  const context = halvesOf(rules.MSI_FLAT ? words : words.slice(0, 4));
  return deviceContextMisconfiguration(context, rules) === null ? { tc, fsc, ta } : -EINVAL;
}

/**
 * What the host adds to a guest's tc: the parent's bits, and with ATS T2GPA where the hardware has it. A device is then given
 * guest-physical addresses, and what it sends as translated still passes the second stage: one that makes such addresses up reaches
 * no frame that is not the VM's (§3.1.3.2). Without T2GPA an ATS device is trusted, as in Linux.
 */
function hostBitsFor(tc: bigint, viommu: RiscvViommu): bigint {
  const contained = (tc & BigInt(TC_EN_ATS)) !== 0n && viommu.iommu.capabilities.T2GPA;
  return BigInt(viommu.parent.hostBits | (contained ? TC_T2GPA : 0));
}

export class RiscvNestedDomain implements NestedDomain, RiscvDomain, Stateful {
  readonly kind = "nested";
  /** The guest has the device's process directory. */
  readonly processContext = null;
  readonly owner: RiscvDriver;
  readonly parent: RiscvPagingDomain;
  readonly viommu: RiscvViommu;
  #context: Context;

  constructor(viommu: RiscvViommu, words: { readonly tc: bigint; readonly fsc: bigint; readonly ta: bigint }) {
    this.viommu = viommu;
    this.owner = viommu.driver;
    this.parent = viommu.parent;
    this.#context =
      words.tc === 0n
        ? INVALID_CONTEXT
        : [words.tc | hostBitsFor(words.tc, viommu), viommu.secondStage, words.ta, words.fsc];
  }

  /** The hardware walks a table of the guest's. */
  get hasFirstStage(): boolean {
    return this.#context[3] >> 60n !== 0n;
  }

  contextFor(): Context {
    return this.#context;
  }

  /** All nested domains of a vIOMMU are cached under its tag. */
  get attachments(): AttachmentList {
    return this.viommu.attachments;
  }

  attach(device: IommuDevice): number {
    if (deviceDataOf(device).iommu !== this.viommu.iommu) return -EINVAL;
    // Without a vDEVICE the guest has no name for the device, so it could neither invalidate nor be told of faults.
    if (this.hasFirstStage && this.viommu.core.virtualIdOf(device) === null) return -ENOENT;
    return moveDevice(device, this);
  }

  free(): void {
    if (this.attachments.items.some(({ domain }) => domain === this))
      throw new Error("a nested domain is freed in use");
    this.viommu.nestedDomainFreed();
  }

  describe(): string {
    const [tc, iohgatp, ta, fsc] = this.#context;
    if ((tc & 1n) === 0n) return `blocked by the guest, GSCID=${this.viommu.gscid}`;
    const stage = this.hasFirstStage ? `fsc=0x${fsc.toString(16)} ta=0x${ta.toString(16)}` : "first stage Bare";
    return `tc=0x${tc.toString(16)} ${stage} iohgatp=0x${iohgatp.toString(16)}`;
  }

  saveState(): StateRecord {
    return { context: [...this.#context] };
  }

  restoreState(state: StateReader): void {
    this.#context = restoredContext(state, "context");
  }
}
