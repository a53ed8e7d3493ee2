// `--check stale`: what is said of accesses by translations that the tables no longer hold.

import { HostDescriptionError } from "../../host/description.ts";
import type { Host } from "../../host/host.ts";
import { UsageError } from "./exit-codes.ts";

/** Lines said one by one; what comes after them is only counted. */
const MOST_LINES = 20;

export class StaleReport {
  #count = 0;
  readonly #said = new Set<string>();

  /** Watches a host's IOMMUs from now on; `dropping`: rules may take commands of theirs as done. Throws UsageError where they cannot be watched. */
  constructor(host: Pick<Host, "reportStaleAccesses">, say: (line: string) => void, dropping: boolean) {
    try {
      host.reportStaleAccesses((device, iommu, nested, { pasid, iova, write, used, now }) => {
        this.#count++;
        const page = iova & ~0xfffn;
        const key = `${device} ${pasid} ${page} ${write} ${used & ~0xfffn} ${now === null ? "" : now & ~0xfffn}`;
        if (this.#said.size >= MOST_LINES || this.#said.has(key)) return;
        this.#said.add(key);
        const where = pasid < 0 ? "" : ` of PASID ${pasid}`;
        const tables = now === null ? "allow no such access" : `say ${hex(now)}`;
        const missing = nested
          ? "the owner of the first stage has changed it without IOMMU_HWPT_INVALIDATE"
          : "the kernel's IOMMU driver has sent no invalidation after an unmap or a switch of domains";
        const dropped = dropping ? ", or a command:… rule has dropped what came of it" : "";
        say(
          `stale: ${device} ${write ? "writes" : "reads"} IOVA ${hex(iova)}${where} at ${hex(used)}, which ${iommu} has cached; ` +
            `its tables ${tables}: ${missing}${dropped}`,
        );
      });
    } catch (error) {
      if (error instanceof HostDescriptionError) throw new UsageError(`--check stale: ${error.message}`);
      throw error;
    }
  }

  get count(): number {
    return this.#count;
  }
}

function hex(value: bigint): string {
  return `0x${value.toString(16)}`;
}
