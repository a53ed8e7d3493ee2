// A capability structure: a run of registers somewhere in configuration space, linked from the list at 0x34 (PCI capabilities,
// PCIe 6.0 §7.5.1) or from 0x100 on (extended ones, §7.6.1). The endpoint chooses the place, the capability declares its
// registers there and is told when software wrote some of them.

import type { Stateful } from "../../base/state.ts";
import type { ConfigSpace } from "../config-space.ts";

/** One with state besides its registers (which are configuration space) is Stateful. */
export interface Capability extends Partial<Stateful> {
  readonly id: number;
  /** Version of an extended capability; absent: a PCI capability below 0x100. */
  readonly extendedVersion?: number;
  /** Length in bytes, header included. */
  readonly bytes: number;
  /** Declares the registers after the header (which the endpoint writes) at `at`. Called once. */
  place(config: ConfigSpace, at: number): void;
  /** Software wrote bytes [from, to) of this structure; offsets count from its start. */
  written?(from: number, to: number): void;
  /** Registers were just reset. */
  reset?(): void;
}

/** True if a write of [from, to) touched the `size` bytes at `register`. */
export function touched(from: number, to: number, register: number, size: number): boolean {
  return from < register + size && register < to;
}
