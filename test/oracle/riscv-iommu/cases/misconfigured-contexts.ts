/** Device contexts that §3.1.4 calls misconfigured, each a valid scene with one thing wrong. All give 259. */
import { CONTEXT, firstStageScene, type Scene, secondStageScene, TC } from "./scene.ts";

/** Contexts that §3.1.4 calls misconfigured: name, changes to the doublewords, capabilities left out. */
export const MISCONFIGURED_CONTEXTS: readonly {
  readonly name: string;
  readonly scene: () => Scene;
}[] = [
  ...[12n, 23n, 32n, 63n].map((at) => ({
    name: `tc bit ${at} is reserved`,
    scene: () => firstStageScene().change(CONTEXT, (tc) => tc | (1n << at)),
  })),
  ...[0n, 11n, 32n, 39n].map((at) => ({
    name: `ta bit ${at} is reserved`,
    scene: () => firstStageScene().change(CONTEXT + 16n, (ta) => ta | (1n << at)),
  })),
  ...[40n, 51n, 52n, 63n].map((at) => ({
    name: `ta bit ${at} is reserved without QOSID (§9)`,
    scene: () => firstStageScene().change(CONTEXT + 16n, (ta) => ta | (1n << at)),
  })),
  ...[44n, 59n].map((at) => ({
    name: `fsc bit ${at} is reserved`,
    scene: () => firstStageScene().change(CONTEXT + 24n, (fsc) => fsc | (1n << at)),
  })),
  { name: "the eighth doubleword is reserved", scene: () => firstStageScene().put(CONTEXT + 56n, 1n) },
  { name: "msiptp bit 44 is reserved", scene: () => firstStageScene().put(CONTEXT + 32n, 1n << 44n) },
  { name: "msi_addr_mask bit 52 is reserved", scene: () => firstStageScene().put(CONTEXT + 40n, 1n << 52n) },
  {
    name: "msi_addr_pattern bits above the widest GPA are reserved",
    scene: () => secondStageScene(["Sv57x4"]).put(CONTEXT + 48n, 1n << 38n), // Sv48x4: 50 bits, so bits 51:38
  },
  { name: "EN_ATS without ATS", scene: () => firstStageScene(["ATS", "T2GPA"]) },
  {
    name: "EN_PRI without EN_ATS",
    scene: () => firstStageScene().put(CONTEXT, TC.V | TC.EN_PRI),
  },
  {
    name: "PRPR without EN_PRI",
    scene: () => firstStageScene().put(CONTEXT, TC.V | TC.EN_ATS | TC.PRPR),
  },
  { name: "T2GPA without EN_ATS", scene: () => secondStageScene().put(CONTEXT, TC.V | TC.T2GPA) },
  {
    name: "T2GPA without the capability",
    scene: () => secondStageScene(["T2GPA"]).put(CONTEXT, TC.V | TC.EN_ATS | TC.T2GPA),
  },
  {
    name: "T2GPA without a second stage",
    scene: () => firstStageScene().put(CONTEXT, TC.V | TC.EN_ATS | TC.T2GPA),
  },
  {
    name: "a process directory mode that means nothing",
    scene: () =>
      firstStageScene()
        .put(CONTEXT, TC.V | TC.PDTV)
        .put(CONTEXT + 24n, 4n << 60n),
  },
  {
    name: "PD17 without the capability",
    scene: () =>
      firstStageScene(["PD17"])
        .put(CONTEXT, TC.V | TC.PDTV)
        .put(CONTEXT + 24n, 2n << 60n),
  },
  { name: "DPE without PDTV", scene: () => firstStageScene().change(CONTEXT, (tc) => tc | TC.DPE) },
  { name: "iosatp mode 7", scene: () => firstStageScene().put(CONTEXT + 24n, 7n << 60n) },
  { name: "iosatp Sv57 without the capability", scene: () => firstStageScene(["Sv57"]).put(CONTEXT + 24n, 10n << 60n) },
  { name: "iohgatp mode 1", scene: () => secondStageScene().put(CONTEXT + 8n, 1n << 60n) },
  {
    name: "iohgatp Sv48x4 without the capability",
    scene: () => secondStageScene(["Sv57x4", "Sv48x4"]).put(CONTEXT + 8n, (9n << 60n) | 0x300n),
  },
  {
    name: "a second-stage root that is not 16 KiB aligned",
    scene: () => secondStageScene().put(CONTEXT + 8n, (8n << 60n) | 0x301n),
  },
  { name: "msiptp mode 2", scene: () => secondStageScene().put(CONTEXT + 32n, 2n << 60n) },
  {
    name: "an MSI page table without a second stage (since 20260222)",
    scene: () => firstStageScene().put(CONTEXT + 32n, (1n << 60n) | 0x400n),
  },
  {
    name: "SADE without AMO_HWAD",
    scene: () => firstStageScene(["AMO_HWAD"]).change(CONTEXT, (tc) => tc | TC.SADE),
  },
  {
    name: "GADE without AMO_HWAD",
    scene: () => secondStageScene(["AMO_HWAD"]).change(CONTEXT, (tc) => tc | TC.GADE),
  },
  { name: "SBE without END", scene: () => firstStageScene().change(CONTEXT, (tc) => tc | TC.SBE) },
  { name: "SXL=1 where GXL is 0 and fixed", scene: () => firstStageScene().change(CONTEXT, (tc) => tc | TC.SXL) },
];
