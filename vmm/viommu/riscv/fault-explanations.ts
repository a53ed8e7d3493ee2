// What a fault cause means, in sentences, with the section of the RISC-V IOMMU specification (version 20260222) that says so; and
// whose fault it is. For `nestbox walk --why` and failing scenarios.

import type { FaultExplanation } from "../explainer.ts";

const PAGE_FAULT =
  "The first stage refused: no valid leaf for this IOVA, a reserved or misaligned entry, or a right that is missing " +
  "(R for reads, W for writes, U for requests in user mode), or A or D clear while hardware may not set them.";
const ACCESS_FAULT =
  "A table entry or the final address lies where there is nothing the guest may reach. A guest-visible IOMMU has no second stage, so " +
  "a stage-2 fault of the host's reaches the guest as this: memory that is absent for the guest.";

const EXPLANATIONS: Readonly<Record<number, FaultExplanation>> = {
  1: { blame: "the guest or the host", why: ACCESS_FAULT, section: "§3.3" },
  5: { blame: "the guest or the host", why: ACCESS_FAULT, section: "§3.3" },
  7: { blame: "the guest or the host", why: ACCESS_FAULT, section: "§3.3" },
  12: { blame: "the guest", why: PAGE_FAULT, section: "§3.3 step 10" },
  13: { blame: "the guest", why: PAGE_FAULT, section: "§3.3 step 10" },
  15: { blame: "the guest", why: PAGE_FAULT, section: "§3.3 step 10" },
  20: secondStage("an instruction fetch"),
  21: secondStage("a read"),
  23: secondStage("a write"),
  256: {
    blame: "the guest",
    why: "ddtp.iommu_mode is Off: no device may do DMA.",
    section: "§3.3 step 1",
  },
  257: { blame: "the guest", why: "The device directory lies where there is no memory.", section: "§3.3.1" },
  258: {
    blame: "the guest",
    why: "The device's entry in the device directory, or one on the way to it, has V = 0: the device is not set up.",
    section: "§3.3.1",
  },
  259: {
    blame: "the guest",
    why: "The device context sets a reserved bit, or asks for a mode or feature that this IOMMU does not offer.",
    section: "§3.1.4",
  },
  260: {
    blame: "the device",
    why:
      "This type of transaction is not allowed for the device: a PASID without process directory or wider than it, ATS without " +
      "EN_ATS, supervisor access without ENS, or a device id wider than the directory.",
    section: "§3.3 steps 1, 2, 4, 9",
  },
  261: { blame: "the host", why: "The MSI page table lies where there is no memory.", section: "§3.3.3" },
  262: { blame: "the host", why: "The MSI page-table entry has V = 0.", section: "§3.3.3" },
  263: { blame: "the host", why: "The MSI page-table entry is malformed.", section: "§3.3.3" },
  264: {
    blame: "the host",
    why: "The memory-resident interrupt file lies where there is no memory.",
    section: "§3.3.3",
  },
  265: {
    blame: "the guest or the host",
    why: "The process directory lies where there is no memory that the guest may reach.",
    section: "§3.3.2",
  },
  266: {
    blame: "the guest",
    why: "The process-directory entry has V = 0: the PASID is not set up.",
    section: "§3.3.2",
  },
  267: { blame: "the guest", why: "The process context is malformed.", section: "§3.2.4" },
  268: { blame: "the host", why: "Memory returned corrupted data for a device-directory entry.", section: "§3.3.1" },
  269: { blame: "the host", why: "Memory returned corrupted data for a process-directory entry.", section: "§3.3.2" },
  270: { blame: "the host", why: "Memory returned corrupted data for an MSI page-table entry.", section: "§3.3.3" },
  271: { blame: "the host", why: "Memory returned corrupted data for an interrupt file.", section: "§3.3.3" },
  272: { blame: "the host", why: "The IOMMU's own data path failed.", section: "§4.2" },
  273: {
    blame: "the guest",
    why: "The IOMMU could not write its own interrupt message: msi_cfg_tbl holds a bad address.",
    section: "§6.29",
  },
  274: { blame: "the host", why: "Memory returned corrupted data for a page-table entry.", section: "§3.3" },
};

function secondStage(access: string): FaultExplanation {
  return {
    blame: "the host",
    why:
      `The second stage refused ${access}: the guest-physical address is not mapped, or not with the right that is needed. ` +
      "iotval2 holds that address; its bit 0 says that the access was one of the first-stage walk's own.",
    section: "§3.3 step 12",
  };
}

/** The explanation of a cause; causes the specification does not define get a sentence that says so. */
export function explainFault(cause: number): FaultExplanation {
  return (
    EXPLANATIONS[cause] ?? {
      blame: "the guest or the host",
      why: `Cause ${cause} is not one the specification defines.`,
      section: "§4.2",
    }
  );
}
