// iommufd for other parts of the kernel (Linux: linux/iommufd.h): what VFIO and drivers of mediated devices call. All of it is
// synchronous; ids and 0 are results, negated errnos refusals.
//
//     addIommufd(kernel)                /dev/iommu becomes a node that can be opened
//     contextOf(file)                   a descriptor's iommufd context; context.file.put() when done
//     bindDevice … unbindDevice         a device under the context's ownership; its id is BoundDevice.id
//     attachDevice / replaceDevice      to an IOAS or HWPT, at NO_PASID or a PASID; return the HWPT's id
//     createAccess …                    software access to an IOAS (mediated devices)
//     createCompatibilityIoas …         a context as VFIO container

import type { Kernel } from "../kernel.ts";
import type { ExtraRequest, IommufdEnvironment } from "./environment.ts";
import { openIommufd } from "./ioctl-table.ts";

export {
  type Access,
  type AccessDriver,
  attachAccess,
  copyBytes,
  createAccess,
  destroyAccess,
  detachAccess,
  pinPages,
  replaceAccess,
  unpinPages,
} from "./access.ts";
export type { IommufdContext } from "./context.ts";
export {
  attachDevice,
  type BoundDevice,
  bindDevice,
  contextHasGroup,
  detachDevice,
  replaceDevice,
  unbindDevice,
} from "./device.ts";
export { contextOf, openIommufd } from "./ioctl-table.ts";
export { compatibilityIoasId, createCompatibilityIoas, setNoIommu, vfioRequest } from "./vfio-compatibility.ts";

export interface IommufdOptions {
  /** Bind devices whose MSIs the platform does not isolate (module parameter; default false). */
  readonly allowUnsafeInterrupts?: boolean;
  /** CONFIG_VFIO_NOIOMMU (default false). */
  readonly noIommu?: boolean;
  readonly extraRequests?: ReadonlyMap<number, ExtraRequest>;
  readonly isTestDevice?: (device: object) => boolean;
}

/** What iommufd needs of a kernel; injection is looked up at each use, so that it can be exchanged at any time. */
export function iommufdEnvironment(
  kernel: Pick<Kernel, "iommu" | "live" | "injector" | "names">,
  options: IommufdOptions = {},
): IommufdEnvironment {
  return {
    iommu: kernel.iommu,
    live: kernel.live,
    names: kernel.names,
    injector: {
      ioctl: (name) => kernel.injector.ioctl(name),
      allocation: (what) => kernel.injector.allocation(what),
      loseEvent: (queue) => kernel.injector.loseEvent(queue),
      erratum: (erratum) => kernel.injector.erratum?.(erratum) === true,
    },
    allowUnsafeInterrupts: options.allowUnsafeInterrupts ?? false,
    noIommu: options.noIommu ?? false,
    extraRequests: options.extraRequests ?? new Map(),
    isTestDevice: options.isTestDevice ?? (() => false),
  };
}

/** Makes /dev/iommu openable. Returns the environment, which VFIO needs to serve /dev/vfio/vfio by iommufd. */
export function addIommufd(kernel: Kernel, options: IommufdOptions = {}): IommufdEnvironment {
  const environment = iommufdEnvironment(kernel, options);
  kernel.addNode("/dev/iommu", () => openIommufd(environment));
  return environment;
}
