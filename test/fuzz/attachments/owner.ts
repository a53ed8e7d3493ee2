// A process with memory to give to devices, a guest's first stages in it, and what it has made of an iommufd.

import { GuestRam } from "../../host/kernel/guest.ts";
import { type Machine, User } from "../../host/kernel/machine.ts";
import type { GuestStage, Kind } from "./kinds.ts";
import type * as M from "./model.ts";

/** Frames that IOASes map: guest-physical for guests, IOVAs for the others. */
export const HOT = 0x9_0000;
export const HOT_FRAMES = 4;
/** Frames that first stages map. */
export const IOVA = 0x4_0000;
export const STAGE_FRAMES = 4;
export const STAGES = 3;
export const OWNER_PAGES = 8;
export const GUEST_RAM = 1 << 18;

/** Every page there ever was, and the stamp it must hold. */
export type Memory = Map<M.PageName, { readonly bytes: DataView; stamp: number }>;

export interface Owner {
  readonly user: User;
  readonly label: string;
  readonly va: bigint;
  readonly ram: GuestRam;
  readonly ramBefore: Uint8Array;
  readonly ramVa: bigint;
  readonly stages: readonly ReadonlyMap<number, number>[];
  readonly tables: readonly GuestStage[];
  iommufd: number;
  ioases: M.Ioas[];
  hwpts: M.Hwpt[];
  viommus: M.Viommu[];
  queues: M.Queue[];
}

export function makeOwner(host: Machine, kind: Kind, memory: Memory, label: string): Owner {
  const user = new User(host.kernel.createProcess(label));
  const buffer = new ArrayBuffer(OWNER_PAGES * 4096);
  for (let i = 0; i < OWNER_PAGES; i++) {
    const bytes = new DataView(buffer, i * 4096, 4096);
    memory.set(`${label} ${i}`, { bytes, stamp: 0 });
  }
  const ram = new GuestRam(GUEST_RAM);
  const tables: GuestStage[] = [];
  const stages: ReadonlyMap<number, number>[] = [];
  for (let s = 0; s < STAGES; s++) {
    const table = kind.stage(ram, s);
    const stage = new Map<number, number>();
    for (let i = 0; i < 4; i++) {
      const to = HOT + ((i * (s + 1) + s) % HOT_FRAMES);
      stage.set(IOVA + i, to);
      table.map(IOVA + i, to);
    }
    tables.push(table);
    stages.push(stage);
  }
  return {
    ...{ user, label, ram, tables, stages },
    va: user.process.memory.mapBuffer(buffer, 0, buffer.byteLength),
    ramVa: user.process.memory.mapBuffer(ram.buffer, 0, GUEST_RAM),
    ramBefore: ram.bytes.slice(),
    iommufd: user.iommufd(),
    ...{ ioases: [], hwpts: [], viommus: [], queues: [] },
  };
}
