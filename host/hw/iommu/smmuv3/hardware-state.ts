// What the parts of one hardware SMMU share besides what all SMMUs' do (host/arch/smmuv3/parts/smmu-state.ts): clock and configuration.

import { SmmuState } from "../../../arch/smmuv3/parts/smmu-state.ts";
import type { HpaPfn } from "../../../base/address.ts";
import type { Clock } from "../../../base/clock.ts";
import type { IommuParts } from "../port.ts";
import type { Smmuv3Configuration } from "./options.ts";

export class HardwareState extends SmmuState<HpaPfn> {
  readonly clock: Clock;
  readonly configuration: Smmuv3Configuration;

  constructor(parts: IommuParts, configuration: Smmuv3Configuration) {
    super(parts.name, "host", parts.memory, parts.trace, configuration.features);
    this.clock = parts.clock;
    this.configuration = configuration;
  }
}
