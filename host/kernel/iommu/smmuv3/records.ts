// Records that the hardware queued, where nobody else wants them: an event is counted and traced as the kernel's own (Linux prints it), a page
// request is denied. Linux denies every page request of an SMMUv3 (arm_smmu_handle_ppr).

import { encodeCommand, RESP_FAILURE } from "../../../arch/smmuv3/commands.ts";
import { decodeEvent, describeEvent, PAGE_REQUEST_RECORD } from "../../../arch/smmuv3/event-records.ts";
import type { Trace } from "../../../base/trace.ts";
import type { Smmuv3Instance } from "./instance.ts";

/** Takes an event for somebody; who it was told to, for the trace, or null if it is nobody's. */
export type EventSink = (smmu: Smmuv3Instance, words: readonly bigint[]) => string | null;

export function takeEvent(trace: Trace, sink: EventSink, smmu: Smmuv3Instance, words: readonly bigint[]): void {
  let previous = 0;
  const told = { to: null as string | null };
  if (trace.on) {
    const event = decodeEvent(words);
    previous = trace.enter({
      type: "fault",
      where: "kernel",
      iommu: smmu.name,
      kind: "smmuv3",
      faultCause: event.number,
      deviceId: event.streamId,
      ...(event.substreamId >= 0 ? { pasid: event.substreamId } : {}),
      iotval: event.inputAddress,
      iotval2: event.address,
      ttyp: 0,
      text: describeEvent(words),
    });
  }
  told.to = sink(smmu, words);
  if (told.to === null) smmu.unhandledEvents++;
  if (trace.on) trace.leave(previous);
}

/** Denies the request's group, if it is the group's last (PCIe 6.0 §10.4.2). */
export function denyPageRequest(smmu: Smmuv3Instance, words: readonly bigint[]): void {
  const get = (field: keyof typeof PAGE_REQUEST_RECORD.fields): number => Number(PAGE_REQUEST_RECORD.get(words, field));
  // A stop marker (last, neither read nor write) asks for nothing (§8.1).
  if (get("Last") === 0 || (get("R") === 0 && get("W") === 0)) return;
  smmu.queue.push(
    encodeCommand("PRI_RESP", {
      SSV: get("SSV"),
      SSID: get("SSV") === 0 ? 0 : get("SSID"),
      SID: get("SID"),
      PRGIndex: get("PRGIndex"),
      Resp: RESP_FAILURE,
    }),
  );
  smmu.queue.flush();
}
