/**
 * A small, wholly valid machine for hand-made cases: one directory level, one device, tables a reader can follow in the head. A case starts
 * from a scene and spoils one thing.
 *
 * Pages: 0x100 device directory (extended format) · 0x110… process directory · 0x200, 0x201, 0x202 first stage (Sv39) · 0x300–0x303 second-stage
 * root (Sv39x4), 0x304… its tables · 0x400 MSI page table. IOVA 0x4020_1abc has the indexes 1, 1, 1.
 */

import { emptyMemory, type Injected, type Memory, word } from "../../memory.ts";
import { CAPABILITY, type Capability, type Implementation } from "../implementation.ts";
import type { DirectoryPointer, Request } from "../outcome.ts";

export const DEVICE = 5n;
export const PROCESS = 3n;
export const IOVA = 0x4020_1abcn;
export const DIRECTORY = 0x10_0000n;
/** Where the device's context lies: 64 bytes an entry. */
export const CONTEXT = DIRECTORY + DEVICE * 64n;
/** Guest page of the first stage's target, and the physical page the second stage gives for it. */
export const GUEST_PAGE = 0x60_0000n;
export const PHYSICAL_PAGE = 0x70_0000n;

export const ALL_CAPABILITIES: readonly Capability[] = [
  "Sv39",
  "Sv48",
  "Sv57",
  "Svrsw60t59b",
  "Svpbmt",
  "Sv39x4",
  "Sv48x4",
  "Sv57x4",
  "MSI_FLAT",
  "MSI_MRIF",
  "AMO_MRIF",
  "AMO_HWAD",
  "ATS",
  "T2GPA",
  "DBG",
  "PD8",
  "PD17",
  "PD20",
  "NL",
  "S",
];

/** tc bits (§3.1.3.1). */
export const TC = {
  V: 1n << 0n,
  EN_ATS: 1n << 1n,
  EN_PRI: 1n << 2n,
  T2GPA: 1n << 3n,
  DTF: 1n << 4n,
  PDTV: 1n << 5n,
  PRPR: 1n << 6n,
  GADE: 1n << 7n,
  SADE: 1n << 8n,
  DPE: 1n << 9n,
  SBE: 1n << 10n,
  SXL: 1n << 11n,
} as const;

/** PTE bits (privileged specification). */
export const PTE = {
  V: 1n << 0n,
  R: 1n << 1n,
  W: 1n << 2n,
  X: 1n << 3n,
  U: 1n << 4n,
  G: 1n << 5n,
  A: 1n << 6n,
  D: 1n << 7n,
  N: 1n << 63n,
} as const;
/** A leaf that permits everything and asks for no update. */
export const FULL = PTE.V | PTE.R | PTE.W | PTE.X | PTE.U | PTE.A | PTE.D;

export function pointer(address: bigint): bigint {
  return ((address >> 12n) << 10n) | 1n;
}

export function leaf(address: bigint, flags: bigint = FULL): bigint {
  return ((address >> 12n) << 10n) | flags;
}

export class Scene {
  readonly memory: Memory = emptyMemory();
  ddtp: DirectoryPointer = { mode: "1lvl", ppn: DIRECTORY >> 12n };
  implementation: Implementation;

  constructor(without: readonly Capability[] = []) {
    let capabilities = 0x10n | (46n << 32n);
    for (const name of ALL_CAPABILITIES) if (!without.includes(name)) capabilities |= 1n << CAPABILITY[name];
    this.implementation = {
      capabilities,
      be: false,
      gxl: false,
      beWritable: false,
      gxlWritable: false,
      rcidWidth: 0,
      mcidWidth: 0,
    };
  }

  put(address: bigint, ...values: bigint[]): this {
    values.forEach((value, index) => {
      const at = address + BigInt(index) * 8n;
      this.memory.pages.add(at >> 12n);
      this.memory.words.set(at, value);
    });
    return this;
  }

  get(address: bigint): bigint {
    return word(this.memory, address);
  }

  change(address: bigint, change: (value: bigint) => bigint): this {
    this.memory.words.set(address, change(this.get(address)));
    return this;
  }

  inject(address: bigint, what: Injected): this {
    this.memory.injected.set(address, what);
    return this;
  }

  withCapabilities(...names: Capability[]): this {
    let { capabilities } = this.implementation;
    for (const name of names) capabilities |= 1n << CAPABILITY[name];
    this.implementation = { ...this.implementation, capabilities };
    return this;
  }
}

/** Addresses of the tables on the way to IOVA, and of the leaf. */
export const FIRST = { root: 0x20_0000n, middle: 0x20_1000n, last: 0x20_2000n, leaf: 0x20_2008n } as const;
export const SECOND = { root: 0x30_0000n } as const;

/** First stage only: Sv39, IOVA to PHYSICAL_PAGE. */
export function firstStageScene(without: readonly Capability[] = []): Scene {
  const scene = new Scene(without);
  scene.put(CONTEXT, TC.V | TC.EN_ATS, 0n, 7n << 12n, (8n << 60n) | (FIRST.root >> 12n), 0n, 0n, 0n, 0n);
  return firstStageTables(scene, PHYSICAL_PAGE);
}

export function firstStageTables(scene: Scene, target: bigint): Scene {
  scene.put(FIRST.root + 8n, pointer(FIRST.middle));
  scene.put(FIRST.middle + 8n, pointer(FIRST.last));
  scene.put(FIRST.leaf, leaf(target));
  return scene;
}

/**
 * Second stage only: Sv39x4, IOVA (here a GPA) to PHYSICAL_PAGE. Root index 1, then 1, then 1: tables 0x304, 0x305, leaf at 0x30_5008.
 */
export function secondStageScene(without: readonly Capability[] = []): Scene {
  const scene = new Scene(without);
  scene.put(CONTEXT, TC.V | TC.EN_ATS, (8n << 60n) | (9n << 44n) | (SECOND.root >> 12n), 0n, 0n, 0n, 0n, 0n, 0n);
  scene.put(SECOND.root + 8n, pointer(0x30_4000n));
  scene.put(0x30_4008n, pointer(0x30_5000n));
  scene.put(0x30_5008n, leaf(PHYSICAL_PAGE));
  return scene;
}

/**
 * Both stages: the first stage's tables lie where the second stage puts guest pages 0x200–0x202 (one 2 MiB leaf, identity), the target is guest
 * page 0x600, which the second stage gives as PHYSICAL_PAGE.
 */
export function bothStagesScene(without: readonly Capability[] = []): Scene {
  const scene = new Scene(without);
  scene.put(
    CONTEXT,
    TC.V | TC.EN_ATS,
    (8n << 60n) | (9n << 44n) | (SECOND.root >> 12n),
    7n << 12n,
    (8n << 60n) | (FIRST.root >> 12n),
    0n,
    0n,
    0n,
    0n,
  );
  scene.put(SECOND.root, pointer(0x30_4000n));
  scene.put(0x30_4008n, leaf(0x20_0000n)); // guest 2 MiB to 4 MiB, identity: the first stage's tables
  scene.put(0x30_4018n, pointer(0x30_5000n)); // guest 6 MiB to 8 MiB
  scene.put(0x30_5000n, leaf(PHYSICAL_PAGE)); // guest page 0x600
  return firstStageTables(scene, GUEST_PAGE);
}

/** A process directory (PD8) at `directory` whose process 3 uses the first stage's tables. The scene's fsc is replaced. */
export function withProcessDirectory(scene: Scene, directory: bigint, tc = 0n): Scene {
  scene.change(CONTEXT, (value) => value | TC.PDTV | tc);
  scene.put(CONTEXT + 24n, (1n << 60n) | (directory >> 12n));
  // V, ENS, SUM, PSCID 7
  scene.put(directory + PROCESS * 16n, 0b111n | (7n << 12n), (8n << 60n) | (FIRST.root >> 12n));
  return scene;
}

/** Guest page 0x600 and 0x601 are interrupt files 0 and 1; the MSI page table is at 0x40_0000. */
export const MSI_TABLE = 0x40_0000n;
export function withInterruptFiles(scene: Scene): Scene {
  scene.put(CONTEXT + 32n, (1n << 60n) | (MSI_TABLE >> 12n), 1n, GUEST_PAGE >> 12n);
  scene.put(MSI_TABLE, leaf(PHYSICAL_PAGE, 0b111n), 0n);
  return scene;
}

const PLAIN: Request = {
  deviceId: DEVICE,
  processId: null,
  privileged: false,
  type: "untranslated",
  access: "read",
  noWrite: false,
  executeRequested: false,
  iova: IOVA,
};

export function request(change: Partial<Request> = {}): Request {
  return { ...PLAIN, ...change };
}
