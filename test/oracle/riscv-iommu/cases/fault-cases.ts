/**
 * The table of fault cases: each spoils one thing in a valid scene and says, from the specification's text, which cause every type of request
 * must give (§4.2), what iotval2 holds, how an ATS request is answered (§3.6), and whether DTF silences the record.
 */
import type { AtsCompletion, Request } from "../outcome.ts";
import {
  bothStagesScene,
  CONTEXT,
  FIRST,
  FULL,
  firstStageScene,
  GUEST_PAGE,
  IOVA,
  leaf,
  MSI_TABLE,
  PROCESS,
  PTE,
  pointer,
  type Scene,
  SECOND,
  secondStageScene,
  TC,
  withInterruptFiles,
  withProcessDirectory,
} from "./scene.ts";

/** A cause that depends on the access: [read, write, execute]. */
export type PerAccess = readonly [number, number, number];

export interface FaultCase {
  readonly name: string;
  readonly scene: () => Scene;
  readonly cause: number | PerAccess;
  readonly iotval2?: bigint;
  /** Changes to the plain request at IOVA. */
  readonly request?: Partial<Request>;
  /** The answer to an ATS request. */
  readonly ats: AtsCompletion["status"];
  /** DTF=1 drops the record. */
  readonly silencedByDtf: boolean;
  /** Types of request that meet the fault; all three if absent. Translated ones need T2GPA to be translated at all. */
  readonly only?: readonly Request["type"][];
}

const ACCESS: PerAccess = [5, 7, 1];
const PAGE: PerAccess = [13, 15, 12];
const GUEST: PerAccess = [21, 23, 20];
const DIRECTORY_FAULT = { ats: "unsupported-request", silencedByDtf: false } as const;
const UNTRANSLATED_AND_ATS: readonly Request["type"][] = ["untranslated", "ats"];
/** A fault of the first stage, which translated requests do not meet (§3.3); success without rights for ATS (§3.6). */
const PAGE_FAULT = { cause: PAGE, only: UNTRANSLATED_AND_ATS, ats: "success", silencedByDtf: true } as const;

const process = { processId: PROCESS };
const DIRECTORY = 0x11_0000n;
/** A process directory inside the guest range that the second stage maps to itself. */
const GUEST_DIRECTORY = 0x21_0000n;

/** Two directory levels: the device moves under entry 0 of a root at 0x12_0000. */
function twoLevels(scene: Scene): Scene {
  scene.ddtp = { mode: "2lvl", ppn: 0x120n };
  return scene.put(0x12_0000n, pointer(0x10_0000n));
}

function t2gpa(): Scene {
  return secondStageScene().change(CONTEXT, (tc) => tc | TC.T2GPA);
}

export const FAULT_CASES: readonly FaultCase[] = [
  {
    name: "256: ddtp Off (§3.3)",
    scene: () => {
      const scene = firstStageScene();
      scene.ddtp = { mode: "off", ppn: 0n };
      return scene;
    },
    cause: 256,
    ...DIRECTORY_FAULT,
  },
  {
    name: "257: no memory under the device directory (§3.3.1)",
    scene: () => {
      const scene = firstStageScene();
      scene.memory.pages.delete(CONTEXT >> 12n);
      return scene;
    },
    cause: 257,
    ...DIRECTORY_FAULT,
  },
  {
    name: "257: an access fault in the last doubleword of the context (§3.3.1)",
    scene: () => firstStageScene().inject(CONTEXT + 56n, "access"),
    cause: 257,
    ...DIRECTORY_FAULT,
  },
  {
    name: "257: an access fault at a non-leaf directory entry (§3.3.1)",
    scene: () => twoLevels(firstStageScene()).inject(0x12_0000n, "access"),
    cause: 257,
    ...DIRECTORY_FAULT,
  },
  {
    name: "257: the directory lies beyond the physical address width (§3.3.1)",
    scene: () => {
      const scene = firstStageScene();
      scene.ddtp = { mode: "1lvl", ppn: 1n << 34n }; // PAS is 46
      return scene;
    },
    cause: 257,
    ...DIRECTORY_FAULT,
  },
  {
    name: "268: poisoned data in the context (§3.3.1)",
    scene: () => firstStageScene().inject(CONTEXT + 8n, "corrupt"),
    cause: 268,
    ats: "completer-abort",
    silencedByDtf: false,
  },
  {
    name: "268: poisoned data in a non-leaf directory entry (§3.3.1)",
    scene: () => twoLevels(firstStageScene()).inject(0x12_0000n, "corrupt"),
    cause: 268,
    ats: "completer-abort",
    silencedByDtf: false,
  },
  {
    name: "258: tc.V=0, whatever else is in the context (§3.3.1)",
    scene: () => firstStageScene().put(CONTEXT, (1n << 64n) - 2n),
    cause: 258,
    ...DIRECTORY_FAULT,
  },
  {
    name: "258: a non-leaf directory entry with V=0 (§3.3.1)",
    scene: () => twoLevels(firstStageScene()).put(0x12_0000n, pointer(0x10_0000n) & ~1n),
    cause: 258,
    ...DIRECTORY_FAULT,
  },
  {
    name: "259: a reserved bit in a non-leaf directory entry (§3)",
    scene: () => twoLevels(firstStageScene()).change(0x12_0000n, (entry) => entry | (1n << 54n)),
    cause: 259,
    ...DIRECTORY_FAULT,
  },
  {
    name: "260: EN_ATS=0 (§3.3)",
    scene: () => firstStageScene().change(CONTEXT, (tc) => tc & ~TC.EN_ATS),
    cause: 260,
    only: ["translated", "ats"],
    ats: "unsupported-request",
    silencedByDtf: true,
  },
  {
    name: "260: a process_id and PDTV=0 (§3.3)",
    scene: () => firstStageScene(),
    request: process,
    cause: 260,
    ats: "unsupported-request",
    silencedByDtf: true,
  },
  {
    name: "260: a process_id wider than pdtp.MODE (§3.3)",
    scene: () => withProcessDirectory(firstStageScene(), DIRECTORY),
    request: { processId: 0x100n },
    cause: 260,
    ats: "unsupported-request",
    silencedByDtf: true,
  },
  {
    name: "260: a supervisor request and ENS=0 (§3.3)",
    scene: () =>
      withProcessDirectory(firstStageScene(), DIRECTORY).change(DIRECTORY + PROCESS * 16n, (ta) => ta & ~0b10n),
    request: { ...process, privileged: true },
    cause: 260,
    only: UNTRANSLATED_AND_ATS,
    ats: "unsupported-request",
    silencedByDtf: true,
  },
  {
    name: "260: device_id wider than the directory; no context, so no DTF (§3.3)",
    scene: () => firstStageScene(),
    request: { deviceId: 0x45n },
    cause: 260,
    ats: "unsupported-request",
    silencedByDtf: false,
  },
  {
    name: "260: a ninth index bit is not lost: device_id 0x4000 in one level (§3)",
    scene: () => firstStageScene(),
    request: { deviceId: 0x4005n },
    cause: 260,
    ats: "unsupported-request",
    silencedByDtf: false,
  },
  {
    name: "260: ddtp Bare takes untranslated requests only (§3.3)",
    scene: () => {
      const scene = firstStageScene();
      scene.ddtp = { mode: "bare", ppn: 0n };
      return scene;
    },
    cause: 260,
    only: ["translated", "ats"],
    ats: "unsupported-request",
    silencedByDtf: false,
  },
  {
    name: "265: no memory under the process directory (§3.3.2)",
    scene: () => {
      const scene = withProcessDirectory(firstStageScene(), DIRECTORY);
      scene.memory.pages.delete(DIRECTORY >> 12n);
      return scene;
    },
    request: process,
    cause: 265,
    only: UNTRANSLATED_AND_ATS,
    ats: "completer-abort",
    silencedByDtf: true,
  },
  {
    name: "265: the second stage's tables fault under a process directory (§3.3.2)",
    scene: () => withProcessDirectory(bothStagesScene(), GUEST_DIRECTORY).inject(0x30_4008n, "access"),
    request: process,
    cause: 265,
    only: UNTRANSLATED_AND_ATS,
    ats: "completer-abort",
    silencedByDtf: true,
  },
  {
    name: "269: poisoned data in the process context (§3.3.2)",
    scene: () => withProcessDirectory(firstStageScene(), DIRECTORY).inject(DIRECTORY + PROCESS * 16n + 8n, "corrupt"),
    request: process,
    cause: 269,
    only: UNTRANSLATED_AND_ATS,
    ats: "completer-abort",
    silencedByDtf: true,
  },
  {
    name: "269: poisoned second-stage entry under a process directory (§3.3.2)",
    scene: () => withProcessDirectory(bothStagesScene(), GUEST_DIRECTORY).inject(0x30_4008n, "corrupt"),
    request: process,
    cause: 269,
    only: UNTRANSLATED_AND_ATS,
    ats: "completer-abort",
    silencedByDtf: true,
  },
  {
    name: "266: process context with V=0 (§3.3.2)",
    scene: () => withProcessDirectory(firstStageScene(), DIRECTORY).put(DIRECTORY + PROCESS * 16n, 0n),
    request: process,
    cause: 266,
    only: UNTRANSLATED_AND_ATS,
    ats: "success",
    silencedByDtf: true,
  },
  {
    name: "267: a reserved bit in the process context (§3.2.3)",
    scene: () =>
      withProcessDirectory(firstStageScene(), DIRECTORY).change(DIRECTORY + PROCESS * 16n, (ta) => ta | (1n << 32n)),
    request: process,
    cause: 267,
    only: UNTRANSLATED_AND_ATS,
    ats: "completer-abort",
    silencedByDtf: true,
  },
  {
    name: "267: a first-stage mode that means nothing (§3.2.3)",
    scene: () =>
      withProcessDirectory(firstStageScene(), DIRECTORY).put(DIRECTORY + PROCESS * 16n + 8n, (11n << 60n) | 0x200n),
    request: process,
    cause: 267,
    only: UNTRANSLATED_AND_ATS,
    ats: "completer-abort",
    silencedByDtf: true,
  },
  {
    name: "267: a first-stage mode the implementation lacks (§3.2.3)",
    scene: () =>
      withProcessDirectory(firstStageScene(["Sv57"]), DIRECTORY).put(
        DIRECTORY + PROCESS * 16n + 8n,
        (10n << 60n) | 0x200n,
      ),
    request: process,
    cause: 267,
    only: UNTRANSLATED_AND_ATS,
    ats: "completer-abort",
    silencedByDtf: true,
  },
  {
    name: "20, 21, 23: the second stage does not map a process directory entry; bit 0 of iotval2 is set (§3.3.2)",
    scene: () => withProcessDirectory(bothStagesScene(), 0x80_0000n),
    request: process,
    cause: GUEST,
    iotval2: 0x80_0000n + PROCESS * 16n + 1n,
    only: UNTRANSLATED_AND_ATS,
    ats: "success",
    silencedByDtf: true,
  },
  {
    name: "5, 7, 1: no memory under a first-stage table (§3.3)",
    scene: () => {
      const scene = firstStageScene();
      scene.memory.pages.delete(FIRST.last >> 12n);
      return scene;
    },
    cause: ACCESS,
    only: UNTRANSLATED_AND_ATS,
    ats: "completer-abort",
    silencedByDtf: true,
  },
  {
    name: "5, 7, 1: no memory under a second-stage table (§3.3)",
    scene: () => {
      const scene = t2gpa();
      scene.memory.pages.delete(0x305n);
      return scene;
    },
    cause: ACCESS,
    ats: "completer-abort",
    silencedByDtf: true,
  },
  {
    name: "5, 7, 1: a table pointer beyond the physical address width (§3.3)",
    scene: () => t2gpa().put(0x30_4008n, pointer(1n << 46n)),
    cause: ACCESS,
    ats: "completer-abort",
    silencedByDtf: true,
  },
  {
    name: "274: a poisoned first-stage entry (§4.2)",
    scene: () => firstStageScene().inject(FIRST.leaf, "corrupt"),
    cause: 274,
    only: UNTRANSLATED_AND_ATS,
    ats: "completer-abort",
    silencedByDtf: true,
  },
  {
    name: "274: a poisoned second-stage entry (§4.2)",
    scene: () => t2gpa().inject(0x30_5008n, "corrupt"),
    cause: 274,
    ats: "completer-abort",
    silencedByDtf: true,
  },
  {
    name: "13, 15, 12: a first-stage leaf with V=0",
    scene: () => firstStageScene().change(FIRST.leaf, (pte) => pte & ~1n),
    ...PAGE_FAULT,
  },
  {
    name: "13, 15, 12: W without R is reserved, X or not (§3.3: no shadow stack)",
    scene: () => firstStageScene().put(FIRST.leaf, leaf(0x70_0000n, FULL & ~PTE.R & ~PTE.X)),
    ...PAGE_FAULT,
  },
  {
    name: "13, 15, 12: a reserved bit (54) in a first-stage leaf",
    scene: () => firstStageScene().change(FIRST.leaf, (pte) => pte | (1n << 54n)),
    ...PAGE_FAULT,
  },
  {
    name: "13, 15, 12: bit 60 is reserved without Svrsw60t59b",
    scene: () => firstStageScene(["Svrsw60t59b"]).change(FIRST.leaf, (pte) => pte | (1n << 60n)),
    ...PAGE_FAULT,
  },
  {
    name: "13, 15, 12: PBMT=3",
    scene: () => firstStageScene().change(FIRST.leaf, (pte) => pte | (3n << 61n)),
    ...PAGE_FAULT,
  },
  {
    name: "13, 15, 12: PBMT=1 without Svpbmt",
    scene: () => firstStageScene(["Svpbmt"]).change(FIRST.leaf, (pte) => pte | (1n << 61n)),
    ...PAGE_FAULT,
  },
  {
    name: "13, 15, 12: N=1 with PPN[3:0] other than 1000",
    scene: () => firstStageScene().change(FIRST.leaf, (pte) => pte | PTE.N),
    ...PAGE_FAULT,
  },
  {
    name: "13, 15, 12: a pointer with U=1",
    scene: () => firstStageScene().change(FIRST.middle + 8n, (pte) => pte | PTE.U),
    ...PAGE_FAULT,
  },
  {
    name: "13, 15, 12: a pointer with A=1",
    scene: () => firstStageScene().change(FIRST.root + 8n, (pte) => pte | PTE.A),
    ...PAGE_FAULT,
  },
  {
    name: "13, 15, 12: a pointer at level 0",
    scene: () => firstStageScene().put(FIRST.leaf, pointer(0x70_0000n)),
    ...PAGE_FAULT,
  },
  {
    name: "13, 15, 12: a misaligned 2 MiB page",
    scene: () => firstStageScene().put(FIRST.middle + 8n, leaf(0x70_0000n)),
    ...PAGE_FAULT,
  },
  {
    name: "13, 15, 12: a User request on a page with U=0; without process_id every request is one (§3.3)",
    scene: () => firstStageScene().change(FIRST.leaf, (pte) => pte & ~PTE.U),
    ...PAGE_FAULT,
  },
  {
    name: "13, 15, 12: a supervisor request on a page with U=1, SUM=0",
    scene: () =>
      withProcessDirectory(firstStageScene(), DIRECTORY).change(DIRECTORY + PROCESS * 16n, (ta) => ta & ~0b100n),
    request: { ...process, privileged: true },
    ...PAGE_FAULT,
  },
  {
    name: "13, 15, 12: A=0 and SADE=0 (§3.4)",
    scene: () => firstStageScene().change(FIRST.leaf, (pte) => pte & ~PTE.A),
    ...PAGE_FAULT,
  },
  {
    name: "13, 15, 12: an IOVA that is not canonical",
    scene: () => firstStageScene(),
    request: { iova: IOVA | (1n << 38n) },
    ...PAGE_FAULT,
  },
  {
    name: "21, 23, 20: the second stage's leaf with V=0",
    scene: () => t2gpa().put(0x30_5008n, 0n),
    cause: GUEST,
    iotval2: IOVA,
    ats: "success",
    silencedByDtf: true,
  },
  {
    name: "21, 23, 20: a second-stage leaf with U=0",
    scene: () => t2gpa().change(0x30_5008n, (pte) => pte & ~PTE.U),
    cause: GUEST,
    iotval2: IOVA,
    ats: "success",
    silencedByDtf: true,
  },
  {
    name: "21, 23, 20: A=0 and GADE=0 (§3.4)",
    scene: () => t2gpa().change(0x30_5008n, (pte) => pte & ~PTE.A),
    cause: GUEST,
    iotval2: IOVA,
    ats: "success",
    silencedByDtf: true,
  },
  {
    name: "21, 23, 20: a GPA wider than 41 bits",
    scene: () => t2gpa(),
    request: { iova: IOVA | (1n << 41n) },
    cause: GUEST,
    iotval2: IOVA | (1n << 41n),
    ats: "success",
    silencedByDtf: true,
  },
  {
    name: "21, 23, 20: a misaligned 1 GiB page",
    scene: () => t2gpa().put(SECOND.root + 8n, leaf(0x70_0000n)),
    cause: GUEST,
    iotval2: IOVA,
    ats: "success",
    silencedByDtf: true,
  },
  {
    name: "21, 23, 20 after a first stage: iotval2 is the GPA, bits 1:0 clear (§4.2)",
    scene: () => bothStagesScene().put(0x30_5000n, 0n),
    cause: GUEST,
    iotval2: GUEST_PAGE + 0xabcn,
    only: UNTRANSLATED_AND_ATS,
    ats: "success",
    silencedByDtf: true,
  },
  {
    name: "21, 23, 20 on a first-stage entry's address: bit 0 set (§4.2)",
    scene: () => bothStagesScene().put(0x30_4008n, 0n),
    cause: GUEST,
    iotval2: FIRST.root + 8n + 1n,
    only: UNTRANSLATED_AND_ATS,
    ats: "success",
    silencedByDtf: true,
  },
  {
    name: "21, 23, 20 on a first-stage entry whose guest page cannot be read: bit 0 set (implicit accesses need R)",
    scene: () => bothStagesScene().put(0x30_4008n, leaf(0x20_0000n, FULL & ~PTE.R & ~PTE.W)),
    cause: GUEST,
    iotval2: FIRST.root + 8n + 1n,
    only: UNTRANSLATED_AND_ATS,
    ats: "success",
    silencedByDtf: true,
  },
  {
    name: "21, 23, 20 on a first-stage A update into a guest page without W: bits 1 and 0 set (§4.2)",
    scene: () =>
      bothStagesScene()
        .change(CONTEXT, (tc) => tc | TC.SADE)
        .change(FIRST.leaf, (pte) => pte & ~PTE.A)
        .put(0x30_4008n, leaf(0x20_0000n, FULL & ~PTE.W)),
    cause: GUEST,
    iotval2: FIRST.leaf + 3n,
    only: UNTRANSLATED_AND_ATS,
    ats: "success",
    silencedByDtf: true,
  },
  {
    name: "21, 23, 20 on a first-stage A update into a guest page with D=0, GADE=0: bits 1 and 0 set (§4.2)",
    scene: () =>
      bothStagesScene()
        .change(CONTEXT, (tc) => tc | TC.SADE)
        .change(FIRST.leaf, (pte) => pte & ~PTE.A)
        .put(0x30_4008n, leaf(0x20_0000n, FULL & ~PTE.D)),
    cause: GUEST,
    iotval2: FIRST.leaf + 3n,
    only: UNTRANSLATED_AND_ATS,
    ats: "success",
    silencedByDtf: true,
  },
  {
    name: "261: an access fault at the MSI page table (§3.3.3)",
    scene: () => withInterruptFiles(bothStagesScene()).inject(MSI_TABLE + 8n, "access"),
    cause: 261,
    only: UNTRANSLATED_AND_ATS,
    ats: "completer-abort",
    silencedByDtf: true,
  },
  {
    name: "270: poisoned data in the MSI page table (§3.3.3)",
    scene: () => withInterruptFiles(bothStagesScene()).inject(MSI_TABLE, "corrupt"),
    cause: 270,
    only: UNTRANSLATED_AND_ATS,
    ats: "completer-abort",
    silencedByDtf: true,
  },
  {
    name: "262: MSI entry with V=0; iotval2 is 0 (§3.3.3)",
    scene: () => withInterruptFiles(bothStagesScene()).put(MSI_TABLE, 0n),
    cause: 262,
    only: UNTRANSLATED_AND_ATS,
    ats: "success",
    silencedByDtf: true,
  },
  {
    name: "263: MSI entry with M=2 (§3.3.3)",
    scene: () => withInterruptFiles(bothStagesScene()).put(MSI_TABLE, leaf(0x70_0000n, 0b101n)),
    cause: 263,
    only: UNTRANSLATED_AND_ATS,
    ats: "completer-abort",
    silencedByDtf: true,
  },
  {
    name: "263: MSI entry with a reserved bit (§3.3.3)",
    scene: () => withInterruptFiles(bothStagesScene()).put(MSI_TABLE, leaf(0x70_0000n, 0b1111n)),
    cause: 263,
    only: UNTRANSLATED_AND_ATS,
    ats: "completer-abort",
    silencedByDtf: true,
  },
  {
    name: "263: MRIF mode without MSI_MRIF (§3.3.3)",
    scene: () => withInterruptFiles(bothStagesScene(["MSI_MRIF", "AMO_MRIF"])).put(MSI_TABLE, leaf(0x70_0000n, 0b011n)),
    cause: 263,
    only: UNTRANSLATED_AND_ATS,
    ats: "completer-abort",
    silencedByDtf: true,
  },
  {
    name: "263: MRIF entry with a reserved bit in its second doubleword (§3.3.3)",
    scene: () => withInterruptFiles(bothStagesScene()).put(MSI_TABLE, leaf(0x70_0000n, 0b011n), 1n << 61n),
    cause: 263,
    only: UNTRANSLATED_AND_ATS,
    ats: "completer-abort",
    silencedByDtf: true,
  },
];
