// Where a kind's stage 1s live in the host (nested-codec.ts names the shapes): on a vIOMMU object (viommu-object.ts), on the second stage
// itself (second-stage.ts), or nowhere (second-stage.ts and mapped-domains.ts).

import type { Stateful } from "../../host/base/state.ts";
import type { HostEvent } from "../viommu/host-port.ts";
import type { DeviceRecord } from "./host-devices.ts";

export interface Stage1Place extends Stateful {
  /** Makes room for a device under its guest's id (`record.guestId`); 0 or a negated errno. */
  enter(record: DeviceRecord): number;
  /** Ends what `enter` began, after the device has been detached; 0 or a negated errno. */
  leave(record: DeviceRecord): number;
  /** Object that nested HWPTs are allocated on, 0: there is none yet. */
  readonly parent: number;
  /** What to attach a device to so that nothing passes: an id; 0: it is to be detached; or a negated errno. */
  blocked(record: DeviceRecord): number;
  /** What to attach a device to so that all passes to the second stage: an id, or a negated errno. */
  bypass(record: DeviceRecord): number;
  /** Object that takes invalidations (for the stage 1 of a device, or of one of its PASIDs), 0: none does. */
  invalidationTarget(record: DeviceRecord | undefined, pasid: number | undefined): number;
  /** Takes the events that have arrived, besides page requests. */
  readEvents(events: HostEvent[]): void;
  /** The stage 1s that devices share; devices have left. They go before the fault queue, which nested HWPTs refer to. */
  releaseStage1s(): void;
  /** Everything else it made. */
  [Symbol.dispose](): void;
}
