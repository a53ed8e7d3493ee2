// The kinds of guest-visible IOMMU there are: a folder and a line each (README.md: "Another kind").

import type { Explainer } from "./explainer.ts";
import type { ViommuKind } from "./kind.ts";
import { RISCV } from "./riscv/kind.ts";

export const VIOMMU_KINDS = { riscv: RISCV } as const;

export type ViommuKindName = keyof typeof VIOMMU_KINDS;

/** What a machine may say about a vIOMMU of any kind there is. */
export type ViommuConfiguration = (typeof VIOMMU_KINDS)[ViommuKindName] extends ViommuKind<infer C> ? C : never;

export const DEFAULT_KIND: ViommuKindName = "riscv";

/** The words of a kind, by the name that trace events carry; those of DEFAULT_KIND carry none, and unknown names are as good as none. */
export function explainerOf(name: string | undefined): Explainer {
  const kinds: Readonly<Record<string, ViommuKind>> = VIOMMU_KINDS;
  return (name !== undefined && Object.hasOwn(kinds, name) ? kinds[name]! : VIOMMU_KINDS[DEFAULT_KIND]).explainer;
}
