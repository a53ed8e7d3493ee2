// `nestbox fuzz viommu --kind smmuv3`: hostile guests on the guest-visible SMMUv3 and everything below it (viommu/smmuv3/hostile-guest.ts).

import { HostileSmmuGuest } from "./viommu/smmuv3/hostile-guest.ts";
import { fuzzerOf, type HostileKind } from "./viommu.ts";

export const KIND: HostileKind = { fuzzer: "smmuv3-viommu", make: (seed) => new HostileSmmuGuest(seed) };

export const fuzzer = fuzzerOf(
  KIND,
  "hostile guests on the SMMUv3 vIOMMU: no DMA their tables do not allow, the host's GERROR stays",
);
