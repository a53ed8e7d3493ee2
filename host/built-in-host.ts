// One of the hosts that ship, checked when it is asked for: a start that needs one does not pay for all. `two-iommus` is the default.

import { type HostDescription, parseHost } from "./description.ts";
import arm from "./examples/arm.json" with { type: "json" };
import armCmdqv from "./examples/arm-cmdqv.json" with { type: "json" };
import intel from "./examples/intel.json" with { type: "json" };
import oneIommu from "./examples/one-iommu.json" with { type: "json" };
import twoIommus from "./examples/two-iommus.json" with { type: "json" };

const DOCUMENTS: Readonly<Record<string, { readonly name: string }>> = {
  "two-iommus": twoIommus,
  "one-iommu": oneIommu,
  arm: arm,
  "arm-cmdqv": armCmdqv,
  intel: intel,
};
const checked = new Map<string, HostDescription>();

export const BUILT_IN_NAMES: readonly string[] = Object.keys(DOCUMENTS);
export const DEFAULT_HOST = "two-iommus";

/** undefined: none has that name. */
export function builtInHost(name: string): HostDescription | undefined {
  if (!Object.hasOwn(DOCUMENTS, name)) return undefined;
  let host = checked.get(name);
  if (host === undefined) checked.set(name, (host = parseHost(DOCUMENTS[name], name)));
  return host;
}
