// Intel VT-d as a kind of hardware: the options of a host's description (README.md says what they mean).

import * as z from "zod";
import { INTERRUPT_FIRST_PFN } from "../../../arch/vtd/interrupt-remapping.ts";
import type { HardwareIommuKind } from "../kind.ts";
import { DEFAULT_FEATURES, type VtdOptions } from "./options.ts";
import { VtdUnit } from "./unit.ts";

const FEATURE_NAMES = Object.keys(DEFAULT_FEATURES) as (keyof typeof DEFAULT_FEATURES)[];
const value = (name: keyof typeof DEFAULT_FEATURES) =>
  typeof DEFAULT_FEATURES[name] === "boolean" ? z.boolean().optional() : z.number().int().nonnegative().optional();

const options = z.strictObject({
  features: z.strictObject(Object.fromEntries(FEATURE_NAMES.map((name) => [name, value(name)]))).optional(),
  caches: z
    .partialRecord(
      z.enum(["contexts", "pasids", "translations", "tables", "interrupts"]),
      z.number().int().min(0).max(65536),
    )
    .optional(),
  hostAddressBits: z.number().int().optional(),
  version: z.number().int().nonnegative().optional(),
  atsTags: z.number().int().optional(),
  atsTimeoutNs: z.number().positive().optional(),
});

export const VTD_HARDWARE: HardwareIommuKind = {
  name: "vtd",
  // Local APICs: a message's address names one, its data the vector.
  doorbells: INTERRUPT_FIRST_PFN,
  options,
  // What the schema checked is what the constructor takes; it checks values and how they go together itself.
  create: (parts, checked) => new VtdUnit(parts, checked as VtdOptions),
};
