// How a platform tells its guest of a vIOMMU of a kind: the device tree's node, and the component world's region.

import type { Cell, PropertyValue, Reference } from "../platform/flattened-device-tree.ts";
import type { Architecture } from "../platform/kernel-image.ts";
import type { RegionKind } from "../vcpu/component/world.ts";

export interface NodeSurroundings {
  /** Where the vIOMMU's own messages go. */
  readonly msiParent: Reference;
  /** Guest-physical base and size of what every stage 1 must map one to one, or devices lose their interrupts. */
  readonly identityRegion: readonly Cell[];
  /** Interrupt specifiers of its wires at the node's interrupt-parent; absent: this platform gives it messages only. */
  readonly wires?: readonly (readonly Cell[])[];
  /** The node of the companion that this vIOMMU has. */
  readonly companion?: Reference;
}

/** A device of its own beside a vIOMMU, whose registers stand behind the vIOMMU's. */
export interface CompanionNode {
  /** Before the "@" of the node's name. */
  readonly name: string;
  /** From the vIOMMU's base. */
  readonly offset: number;
  readonly bytes: number;
  /** But for `reg`; `wires` are the vIOMMU's. */
  properties(wires: readonly (readonly Cell[])[] | undefined): Readonly<Record<string, PropertyValue>>;
}

export interface PlatformNode {
  /** Kernels of this instruction set expect it where nothing else is said. */
  readonly architecture?: Architecture;
  /** Properties of the device-tree node but for `reg`, by the kind's binding. */
  deviceTree(surroundings: NodeSurroundings): Readonly<Record<string, PropertyValue>>;
  /** What stands beside a vIOMMU whose guest has command queues of the hardware's. */
  readonly companion?: CompanionNode;
  /** The region of the component world that its registers are. */
  readonly region: RegionKind;
  /** Wires it has on a component machine, at most 16. */
  readonly wires: number;
  /** Its wires are edges: each time one is asserted is an interrupt, whatever comes of the level. Left out: levels. */
  readonly edges?: true;
}
