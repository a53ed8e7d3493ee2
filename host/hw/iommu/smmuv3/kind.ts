// The SMMUv3 as a kind of hardware: the options of a host's description (README.md says what they mean).

import * as z from "zod";
import type { HardwareIommuKind } from "../kind.ts";
import { DEFAULT_FEATURES, type Smmuv3Options } from "./options.ts";
import { Smmuv3 } from "./smmu.ts";

const FEATURE_NAMES = Object.keys(DEFAULT_FEATURES) as (keyof typeof DEFAULT_FEATURES)[];
const value = (name: keyof typeof DEFAULT_FEATURES) =>
  typeof DEFAULT_FEATURES[name] === "boolean" ? z.boolean().optional() : z.number().int().nonnegative().optional();

const options = z.strictObject({
  features: z.strictObject(Object.fromEntries(FEATURE_NAMES.map((name) => [name, value(name)]))).optional(),
  caches: z
    .partialRecord(z.enum(["streams", "contexts", "translations", "tables"]), z.number().int().min(0).max(65536))
    .optional(),
  iidr: z.number().int().nonnegative().optional(),
  abortsAtReset: z.boolean().optional(),
  atsTags: z.number().int().optional(),
  atsTimeoutNs: z.number().positive().optional(),
  /** A Tegra241 CMDQV beside it, {} as that one is; absent: none. */
  cmdqv: z
    .strictObject({
      log2vcmdqs: z.number().int().nonnegative().optional(),
      log2vintfs: z.number().int().nonnegative().optional(),
      log2vsids: z.number().int().nonnegative().optional(),
    })
    .optional(),
});

export const SMMUV3_HARDWARE: HardwareIommuKind = {
  name: "smmuv3",
  stalls: true,
  options,
  // What the schema checked is what the constructor takes; it checks values and how they go together itself.
  create: (parts, checked) => new Smmuv3(parts, checked as Smmuv3Options),
};
