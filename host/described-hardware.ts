// Hardware as a description asks for it: an IOMMU or a device of the model that is named. Where it goes is host.ts's.
// Everything here throws HostDescriptionError for what the description's checks cannot see: an option out of range, a file that cannot be opened.
import type { HpaPfn } from "./base/address.ts";
import type { Clock } from "./base/clock.ts";
import type { PhysicalMemory } from "./base/memory.ts";
import type { Trace } from "./base/trace.ts";
import {
  type DeviceDescription,
  HostDescriptionError,
  type IommuDescription,
  type PlatformDeviceDescription,
} from "./description.ts";
import { Edu } from "./devices/edu/edu.ts";
import { PlatformEdu } from "./devices/edu/platform-edu.ts";
import { type BlockStore, MemoryBlockStore } from "./devices/nvme/block-store.ts";
import { NvmeController } from "./devices/nvme/controller.ts";
import type { PciFunction } from "./devices/ports.ts";
import type { HardwareKinds } from "./hw/iommu/kinds.ts";
import type { HardwareIommu } from "./hw/iommu/port.ts";

const DEFAULT_DRIVE_BYTES = 64 * 2 ** 20;

/** Opens the file behind an NVMe drive. */
export type OpenBlockFile = (file: string, blockBytes: 512 | 4096) => BlockStore;

/** Makes what the options of `where` describe; what they cannot be (RangeError) is the description's fault. */
function described<T>(where: string, make: () => T): T {
  try {
    return make();
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new HostDescriptionError(`${where}: ${error.message}`);
  }
}

/** `host` is the name of the description. */
export function makeIommu(
  host: string,
  { name, kind, options }: IommuDescription,
  kinds: HardwareKinds,
  world: { readonly memory: PhysicalMemory<HpaPfn>; readonly clock: Clock; readonly trace: Trace },
): HardwareIommu {
  if (!Object.hasOwn(kinds, kind)) throw new HostDescriptionError(`${host}: ${name}: no kind of IOMMU "${kind}"`);
  return described(`${host}: ${name}`, () => kinds[kind]!.create({ name, ...world }, definedOnly(options)));
}

/** `openFile` absent: there are no files here (a browser). */
export function makeFunction(
  host: string,
  device: DeviceDescription,
  openFile: OpenBlockFile | undefined,
): PciFunction {
  switch (device.model) {
    case "edu":
      return described(
        `${host}: ${device.bdf}`,
        () => new Edu({ name: `edu ${device.bdf}`, ...definedOnly(device.options) }),
      );
    case "nvme":
      return new NvmeController({
        name: `nvme ${device.bdf}`,
        store: openStore(device, openFile),
        messages: device.options.messages ?? true,
        serial: `NB${device.bdf.replaceAll(/[:.]/g, "")}`,
      });
  }
}

export function makePlatformDevice({ name, options }: PlatformDeviceDescription): PlatformEdu {
  return new PlatformEdu({ name: `edu ${name}`, ...definedOnly(options) });
}

function openStore(
  { bdf, options }: Extract<DeviceDescription, { model: "nvme" }>,
  openFile: OpenBlockFile | undefined,
): BlockStore {
  const blockBytes = options.blockBytes ?? 512;
  if (options.file === undefined) return new MemoryBlockStore(options.size ?? DEFAULT_DRIVE_BYTES, blockBytes);
  if (openFile === undefined) throw new HostDescriptionError(`${bdf}: there are no files here, only drives in memory`);
  return openFile(options.file, blockBytes);
}

/** Drops keys whose value is undefined (exact optional properties). */
function definedOnly<T extends object>(options: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>;
  };
}
