// What all iommufd contexts of one host share, handed to each when /dev/iommu is opened.

import type { Injector } from "../inject.ts";
import type { IommuCore } from "../iommu/core.ts";
import type { LiveObjects } from "../live-objects.ts";
import type { ObjectNames } from "../object-names.ts";
import type { IommufdCommand } from "./command.ts";

/** A request beyond the interface of host/uapi/iommufd.ts: the selftest driver's IOMMU_TEST_CMD. */
export interface ExtraRequest {
  readonly name: string;
  /** Size of its structure and the smallest accepted size, in bytes. */
  readonly bytes: number;
  readonly minimum: number;
  readonly handle: (command: IommufdCommand) => number;
}

export interface IommufdEnvironment {
  readonly iommu: IommuCore;
  readonly live: LiveObjects;
  readonly injector: Injector;
  /** What state documents call processes and their files. */
  readonly names: ObjectNames;
  /** Module parameter: bind devices whose MSIs the platform does not isolate. */
  readonly allowUnsafeInterrupts: boolean;
  /** CONFIG_VFIO_NOIOMMU. */
  readonly noIommu: boolean;
  /** Requests beyond the interface, by number. */
  readonly extraRequests: ReadonlyMap<number, ExtraRequest>;
  /** True for devices of a test driver, which hold no reference to the context (Linux: iommufd_selftest_is_mock_dev). */
  readonly isTestDevice: (device: object) => boolean;
}
