// The kinds of guest-visible IOMMU there are: a folder and a line each (README.md: "Another kind").

import type { Architecture } from "../platform/kernel-image.ts";
import type { Explainer } from "./explainer.ts";
import type { ViommuKind } from "./kind.ts";
import { RISCV } from "./riscv/kind.ts";
import { SMMUV3 } from "./smmuv3/kind.ts";
import { VTD } from "./vtd/kind.ts";

export const VIOMMU_KINDS = {
  riscv: RISCV,
  smmuv3: SMMUV3,
  vtd: VTD,
} as const;

export type ViommuKindName = keyof typeof VIOMMU_KINDS;

export const DEFAULT_KIND = "riscv" satisfies ViommuKindName;
export type DefaultKind = typeof DEFAULT_KIND;

/** The kind that kernels of an instruction set expect. */
export function kindOfArchitecture(architecture: Architecture): ViommuKindName {
  const names = Object.keys(VIOMMU_KINDS) as ViommuKindName[];
  const kinds: Readonly<Record<string, ViommuKind>> = VIOMMU_KINDS;
  return names.find((name) => kinds[name]!.node.architecture === architecture) ?? DEFAULT_KIND;
}

// What a kind's own types are, for scenarios that name the kind.
type Kind<K extends ViommuKindName> = (typeof VIOMMU_KINDS)[K];
/** What a machine may say about a vIOMMU of the kind. */
export type ConfigurationOf<K extends ViommuKindName> = NonNullable<Parameters<Kind<K>["create"]>[0]["configuration"]>;
export type DriverOf<K extends ViommuKindName> = ReturnType<Kind<K>["guest"]["driver"]>;
export type Stage1Of<K extends ViommuKindName> = ReturnType<Kind<K>["guest"]["stage1"]>;
export type Stage1ModeOf<K extends ViommuKindName> = NonNullable<Parameters<Kind<K>["guest"]["stage1"]>[2]>;
export type FaultOf<K extends ViommuKindName> = Parameters<Kind<K>["guest"]["faultOf"]>[0];
/** The architecture's own structure for a device, and what may be said beside a translation. */
export type ContextOf<K extends ViommuKindName> = Parameters<DriverOf<K>["installContext"]>[1];
export type TranslationExtraOf<K extends ViommuKindName> = NonNullable<
  Parameters<DriverOf<K>["installTranslation"]>[2]
>;

/** The words of a kind, by the name that trace events carry; those of DEFAULT_KIND carry none, and unknown names are as good as none. */
export function explainerOf(name: string | undefined): Explainer {
  const kinds: Readonly<Record<string, ViommuKind>> = VIOMMU_KINDS;
  return (name !== undefined && Object.hasOwn(kinds, name) ? kinds[name]! : VIOMMU_KINDS[DEFAULT_KIND]).explainer;
}
