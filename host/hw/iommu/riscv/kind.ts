// The RISC-V IOMMU as a kind of hardware: the options of a host's description (README.md says what they mean).

import * as z from "zod";
import type { HardwareIommuKind } from "../kind.ts";
import { RiscvIommu } from "./iommu.ts";
import { DEFAULT_CAPABILITIES, type RiscvIommuOptions } from "./options.ts";

const CAPABILITY_NAMES = Object.keys(DEFAULT_CAPABILITIES) as (keyof typeof DEFAULT_CAPABILITIES)[];
const bits = z.union([z.boolean(), z.number().int().nonnegative()]);

const options = z.strictObject({
  capabilities: z.partialRecord(z.enum(CAPABILITY_NAMES), bits).optional(),
  bigEndian: z.boolean().optional(),
  wiredInterrupts: z.boolean().optional(),
  resetMode: z.enum(["off", "bare"]).optional(),
  directoryLevels: z.union([z.literal(1), z.literal(2), z.literal(3)]).optional(),
  queueSizeLog2: z.number().int().optional(),
  counters: z.number().int().optional(),
  counterBits: z.number().int().optional(),
  vectorBits: z.number().int().optional(),
  rcidBits: z.number().int().optional(),
  mcidBits: z.number().int().optional(),
  atsTags: z.number().int().optional(),
  atsTimeoutNs: z.number().positive().optional(),
  caches: z
    .partialRecord(
      z.enum(["devices", "processes", "translations", "messages", "tables"]),
      z.number().int().min(0).max(65536),
    )
    .optional(),
  bareRangeLog2: z.number().int().optional(),
});

export const RISCV_HARDWARE: HardwareIommuKind = {
  name: "riscv",
  options,
  // What the schema checked is what the constructor takes; it checks values and how they go together itself.
  create: (parts, checked) => new RiscvIommu(parts, checked as RiscvIommuOptions),
};
