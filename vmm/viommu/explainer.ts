// A kind's words for what the views show: table entries decoded, addresses taken from them, faults explained with the specification's
// section, registers read through their table. Pure functions of trace events; reading registers changes nothing.

import type { MmioPort } from "../../host/base/mmio.ts";
import type { TracedEvent } from "../../host/base/trace.ts";
import type { DecodedStructure } from "./decoded-structure.ts";

export type WalkStep = Extract<TracedEvent, { type: "walk" }>;
export type WalkFault = Extract<TracedEvent, { type: "fault" }>;

export interface FaultExplanation {
  /** What the architecture calls it, where that says more than its number. */
  readonly name?: string;
  /** "the guest": its own tables, context or commands. "the host": what stage 2 maps. "the device": what it asked for. */
  readonly blame: "the guest" | "the host" | "the device" | "the guest or the host";
  readonly why: string;
  readonly section: string;
}

export interface Explainer {
  /** "RISC-V IOMMU specification". */
  readonly specification: string;
  /** True if a load cannot belong to the walk whose loads so far (at least one) are given: another walk of the same device begins. */
  beginsAnew(walk: readonly WalkStep[], next: WalkStep): boolean;
  /** An entry in the specification's words. */
  describeEntry(step: WalkStep): string;
  /** The same, field by field, of what the trace carries of it: a structure's first doubleword. */
  decodeEntry(step: WalkStep): DecodedStructure;
  /** A command's two doublewords, field by field; null: there is no such command. */
  decodeCommand(words: readonly bigint[]): DecodedStructure | null;
  /** A fault record's (an event's) doublewords, field by field. */
  decodeFault(words: readonly bigint[]): DecodedStructure;
  /** Address that a stage-1 leaf gives for an IOVA, bits below the leaf's reach included; null if the entry is no leaf. */
  stage1Output(leaf: WalkStep, iova: bigint): bigint | null;
  /**
   * The guest-physical address that a second-stage walk translated, from the places its loads came from; bits below the leaf's reach are
   * `result`'s. null if the loads did not come to a leaf.
   */
  stage2Input(loads: readonly WalkStep[], result: bigint | null): bigint | null;
  /**
   * Whose entry ("stage1", or a directory) second-stage loads were for that nothing followed; "final": the address that stage 1 gave. `before`: the last
   * entry fetched; `serves`: as the loads say.
   */
  servedTable(before: WalkStep | null, fault: WalkFault | null, serves: number | undefined): string;
  /** The guest-physical address that a fault is about; null if it does not say. */
  faultAddress(fault: WalkFault): bigint | null;
  /** True if the transaction that faulted was a write. */
  faultWrites(fault: WalkFault): boolean;
  /** `fault`: what else was recorded; left out: of the number alone. */
  explainFault(cause: number, fault?: WalkFault): FaultExplanation;
  /** The registers that software can read without changing anything: name to value and meaning. */
  registers(port: MmioPort): Readonly<Record<string, string>>;
}
