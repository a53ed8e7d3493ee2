// `nestbox fuzz viommu --kind vtd`: hostile guests on the guest-visible VT-d unit and everything below it (viommu/vtd/hostile-guest.ts).

import { HostileVtdGuest } from "./viommu/vtd/hostile-guest.ts";
import { fuzzerOf, type HostileKind } from "./viommu.ts";

export const KIND: HostileKind = { fuzzer: "vtd-viommu", make: (seed) => new HostileVtdGuest(seed) };

export const fuzzer = fuzzerOf(
  KIND,
  "hostile guests on the VT-d vIOMMU: no DMA their tables do not allow, the host's queue goes on",
);
