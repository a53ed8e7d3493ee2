// A kind of hardware IOMMU: what a host's description may say of one, and how it is made.

import type * as z from "zod";
import type { HardwareIommu, IommuParts } from "./port.ts";

export interface HardwareIommuKind<Options extends object = object> {
  /** As in a host's description: "riscv". */
  readonly name: string;
  /** It may stall a transaction and let software decide. Absent: never. */
  readonly stalls?: boolean;
  /** Page frame at which machines with it have their doorbells of messages. Absent: anywhere, the host chooses. */
  readonly doorbells?: number;
  /** Checks the `options` of a description; keys that were left out stay undefined. */
  readonly options: z.ZodType<Options>;
  /** Throws RangeError, in words for a person, for options that do not go together. */
  create(parts: IommuParts, options: Options): HardwareIommu;
}
