// What `nestbox host` and `nestbox replay` say at the end, in lines.

import type { HostSummary } from "../../host/adapters/served-host.ts";

export function summaryLines({ ioctls, devices, findings, unusedRules }: HostSummary): string[] {
  const calls = Object.entries(ioctls).map(([name, count]) => `${name} ${count}`);
  return [
    `ioctls: ${calls.join(", ") || "none"}`,
    ...devices.map(({ name, accesses, transfers, bytes, aborted, messages, faults }) => {
      const moved = `DMA: ${transfers} transfers, ${bytes} bytes, ${aborted} aborted, ${messages} MSIs, ${faults} IOMMU faults`;
      return `${name}: ${accesses} accesses, ${moved}`;
    }),
    ...findings,
    ...unusedRules.map((rule) => `--inject ${rule}: there was no occasion for it`),
  ];
}
