/**
 * Page Requests and Stop Markers (§3.7): what becomes of a message, depending on the device context and the state of the page-request queue.
 */
import { locateDeviceContext, tooWide } from "./device-context.ts";
import type { Implementation } from "./implementation.ts";
import { type DirectoryPointer, type FaultRecord, Stop } from "./outcome.ts";
import type { Tables } from "./tables.ts";

export interface PageRequest {
  readonly deviceId: bigint;
  readonly processId: bigint | null;
  readonly privileged: boolean;
  readonly execute: boolean;
  readonly read: boolean;
  readonly write: boolean;
  readonly last: boolean;
  /** Page request group index, 9 bits. */
  readonly group: bigint;
  /** Multiple of 4096. */
  readonly address: bigint;
}

export type QueueState = "ready" | "off" | "memory-fault" | "full" | "overflowed";

export type PageRequestOutcome =
  | { readonly kind: "queued"; readonly record: readonly [bigint, bigint] }
  | { readonly kind: "dropped"; readonly fault: FaultRecord | null }
  | {
      readonly kind: "answered";
      readonly code: number;
      readonly processId: bigint | null;
      readonly fault: FaultRecord | null;
    };

const RESPONSE_FAILURE = 0xf;
const INVALID_REQUEST = 1;
const SUCCESS = 0;

export function pageRequest(
  implementation: Implementation,
  ddtp: DirectoryPointer,
  tables: Tables,
  request: PageRequest,
  queue: QueueState,
): PageRequestOutcome {
  let dtf = false;
  let prpr = false;
  try {
    if (ddtp.mode === "off") throw new Stop(256);
    if (ddtp.mode === "bare") throw new Stop(260);
    if (tooWide(implementation, ddtp, request.deviceId)) throw new Stop(260);
    const dc = locateDeviceContext(implementation, tables, ddtp, request.deviceId);
    dtf = dc.dtf;
    prpr = dc.prpr;
    if (!dc.enAts || !dc.enPri) throw new Stop(260);
  } catch (stop) {
    if (!(stop instanceof Stop)) throw stop;
    const suppressed = dtf && stop.cause === 260;
    const fault = suppressed ? null : messageFault(request, stop.cause);
    return answer(request, stop.cause === 260 ? INVALID_REQUEST : RESPONSE_FAILURE, prpr, fault);
  }
  if (queue === "off" || queue === "memory-fault") return answer(request, RESPONSE_FAILURE, prpr, null);
  if (queue === "full" || queue === "overflowed") return answer(request, SUCCESS, prpr, null);
  return { kind: "queued", record: queueRecord(request) };
}

function answer(request: PageRequest, code: number, prpr: boolean, fault: FaultRecord | null): PageRequestOutcome {
  // Only the last request of a group is answered, and a Stop Marker (L=1, R=W=0) never.
  if (!request.last || (!request.read && !request.write)) return { kind: "dropped", fault };
  // A failure echoes the PASID if there was one; the other codes only if PRG responses need it (PRPR).
  const withPasid = code === RESPONSE_FAILURE || prpr;
  return { kind: "answered", code, processId: withPasid ? request.processId : null, fault };
}

/** TTYP 9, iotval the message code of a Page Request, 4 (§4.2). */
function messageFault(request: PageRequest, cause: number): FaultRecord {
  const pv = request.processId !== null;
  return {
    cause,
    pid: request.processId ?? 0n,
    pv,
    priv: pv && request.privileged,
    ttyp: 9,
    did: request.deviceId,
    iotval: 4n,
    iotval2: 0n,
  };
}

/** The 16-byte record of the page-request queue (§4.3). */
function queueRecord(request: PageRequest): readonly [bigint, bigint] {
  const pv = request.processId !== null;
  const flag = (on: boolean, at: bigint) => (on ? 1n << at : 0n);
  const low =
    ((request.processId ?? 0n) << 12n) |
    flag(pv, 32n) |
    flag(pv && request.privileged, 33n) |
    flag(pv && request.execute, 34n) |
    (request.deviceId << 40n);
  const high =
    flag(request.read, 0n) | flag(request.write, 1n) | flag(request.last, 2n) | (request.group << 3n) | request.address;
  return [low, high];
}
