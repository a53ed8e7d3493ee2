// A machine with one IOMMU of any kind and an edu behind it that a process has taken: DMA at one IOVA, and the page that is mapped there.

import { HARDWARE_KINDS } from "../../../host/hw/iommu/kinds.ts";
import type { HardwareIommu, IommuParts } from "../../../host/hw/iommu/port.ts";
import { eduDma, eduOutcome, machine, name } from "./machine.ts";

export const RID = 0x0108;
export const IOVA = 0x4000_0000n;
export const PAGE = 4096n;

export class AssignedEdu {
  readonly host: ReturnType<typeof machine>;
  readonly iommu: HardwareIommu;
  /** Maps the page with this number, of a buffer of 16, at IOVA: 0 or a negated errno. */
  readonly map: (page: bigint) => number;
  readonly unmap: () => number;
  /** Outcome of 64 bytes of DMA. */
  readonly dma: (iova: bigint, toRam: boolean) => number;

  /** `kind`: of HARDWARE_KINDS, with the options that its description leaves out. */
  constructor(kind: string) {
    const { create, options, doorbells } = HARDWARE_KINDS[kind]!;
    const make = [(parts: IommuParts) => create(parts, options.parse({}))];
    const host = machine({
      hardware: { make, ...(doorbells === undefined ? {} : { doorbells }) },
      devices: [{ rid: RID }],
    });
    this.host = host;
    this.iommu = host.iommus[0]!;
    host.assign();
    const user = host.user();
    const va = user.process.memory.mapBuffer(new ArrayBuffer(16 * 4096), 0, 16 * 4096);
    const iommufd = user.iommufd();
    const ioas = user.ioas(iommufd);
    const vfio = user.open(host.vfio.nodeOf(name(RID))!);
    const device = user.bind(vfio, iommufd);
    user.attach(vfio, user.hwpt(iommufd, device, ioas));
    user.enableDevice(vfio);
    const bar = user.bar0(vfio);
    this.map = (page) => user.map(iommufd, ioas, va + page * PAGE, 4096, IOVA);
    this.unmap = () => user.unmap(iommufd, ioas, IOVA, PAGE);
    this.dma = (iova, toRam) => {
      eduDma(bar, iova, 64, toRam);
      host.run(100_000);
      return eduOutcome(bar);
    };
  }
}
