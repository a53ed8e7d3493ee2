// What `--viommu` offers and means.

import { Option } from "commander";
import type { ViommuKind } from "../viommu/kind.ts";
import { DEFAULT_KIND, VIOMMU_KINDS, type ViommuKindName } from "../viommu/kinds.ts";

/** Kind of the guest-visible IOMMU; "none" where a machine without is possible. */
export type ViommuChoice = ViommuKindName | "none";

export function viommuOption(none: boolean): Option {
  const kinds = [...Object.keys(VIOMMU_KINDS), ...(none ? ["none"] : [])];
  const option = new Option("--viommu <kind>", "kind of the guest-visible IOMMU").choices(kinds);
  // where a machine without is possible there are kernels, too, and what they expect depends on their instruction set
  return none ? option.default(undefined, `${DEFAULT_KIND}, or what a kernel expects`) : option.default(DEFAULT_KIND);
}

/** The built-in host of a choice of IOMMU, where none is named. */
export function hostOf(choice: ViommuChoice = DEFAULT_KIND): string {
  return VIOMMU_KINDS[choice === "none" ? DEFAULT_KIND : choice].guest.host;
}

/** What `--viommu` means to a machine. */
export function viommuOf(choice: ViommuChoice): { readonly kind: ViommuKind; readonly viommu: boolean } {
  return { kind: VIOMMU_KINDS[choice === "none" ? DEFAULT_KIND : choice], viommu: choice !== "none" };
}
