/**
 * "Process to translate an IOVA" (§3.3), step by step, and what becomes of its result: an address, an abort with a fault record (§4.2), or an
 * ATS completion (§3.6).
 */

import type { Choose } from "../latitude.ts";
import { type DeviceContext, firstStageMode, locateDeviceContext, processIdBits, tooWide } from "./device-context.ts";
import { type FirstStageTable, firstStage } from "./first-stage.ts";
import { bits, type Implementation } from "./implementation.ts";
import { isInterruptFile, translateMsi } from "./msi.ts";
import {
  type AtsCompletion,
  type DirectoryPointer,
  type FaultRecord,
  type InterruptFile,
  type Outcome,
  type Request,
  Stop,
} from "./outcome.ts";
import { locateProcessContext } from "./process-context.ts";
import { secondStage } from "./second-stage.ts";
import type { Tables } from "./tables.ts";
import { type Wish, wishOf } from "./wish.ts";

/** What the steps give before it is dressed as an answer. */
interface Found {
  readonly address: bigint;
  readonly gpa: bigint;
  readonly r: boolean;
  readonly w: boolean;
  readonly x: boolean;
  readonly memoryType: bigint;
  readonly global: boolean;
  readonly msi: boolean;
  readonly interruptFile: InterruptFile | null;
  readonly widest: bigint | null;
}

/** The device context that the run found, for DTF. */
interface Progress {
  dc: DeviceContext | null;
}

export function translate(
  implementation: Implementation,
  ddtp: DirectoryPointer,
  tables: Tables,
  request: Request,
  choose: Choose,
): Outcome {
  const progress: Progress = { dc: null };
  const effects = { writes: tables.writes, optional: tables.optional };
  try {
    const found = steps(implementation, ddtp, tables, request, choose, progress);
    if (request.type === "ats") {
      const completion = success(request, progress.dc!, found);
      return { result: { kind: "ats", completion }, record: null, ...effects };
    }
    const { address, memoryType, widest, interruptFile } = found;
    return {
      result: { kind: "translated", translation: { address, memoryType, widest, interruptFile } },
      record: null,
      ...effects,
    };
  } catch (stop) {
    if (!(stop instanceof Stop)) throw stop;
    if (request.type === "ats") {
      const status = atsStatus(stop.cause);
      const record = status === "success" ? null : faultRecord(request, stop, progress.dc);
      const completion: AtsCompletion = {
        status,
        r: false,
        w: false,
        exe: false,
        priv: status === "success" && request.processId !== null && request.privileged,
        global: false,
        u: false,
        translation: null,
      };
      return { result: { kind: "ats", completion }, record, ...effects };
    }
    return {
      result: { kind: "aborted", cause: stop.cause },
      record: faultRecord(request, stop, progress.dc),
      ...effects,
    };
  }
}

function steps(
  implementation: Implementation,
  ddtp: DirectoryPointer,
  tables: Tables,
  request: Request,
  choose: Choose,
  progress: Progress,
): Found {
  const { type, iova, deviceId } = request;
  const wish = wishOf(request);
  const untouched: Found = {
    address: iova,
    gpa: iova,
    r: true,
    w: true,
    x: true,
    memoryType: 0n,
    global: false,
    msi: false,
    interruptFile: null,
    widest: null,
  };
  if (ddtp.mode === "off") throw new Stop(256);
  if (ddtp.mode === "bare") {
    if (type !== "untranslated") throw new Stop(260);
    return untouched;
  }
  if (tooWide(implementation, ddtp, deviceId)) throw new Stop(260);
  const dc = locateDeviceContext(implementation, tables, ddtp, deviceId);
  progress.dc = dc;
  if (type !== "untranslated" && !dc.enAts) throw new Stop(260);
  if (request.processId !== null) {
    if (!dc.pdtv) throw new Stop(260);
    const width = processIdBits(bits(dc.fsc, 63n, 60n));
    if (width !== null && request.processId >> width !== 0n) throw new Stop(260);
  }
  if (type === "translated" && !dc.t2gpa) return untouched;
  const table = firstStageTable(implementation, tables, dc, request, wish, choose);
  return bothStages(implementation, tables, dc, request, table, wish, choose);
}

const BARE: FirstStageTable = { mode: "bare", ppn: 0n, pscid: 0n, sum: false };

/** Which first-stage table the request uses: steps 5 to 9. */
function firstStageTable(
  implementation: Implementation,
  tables: Tables,
  dc: DeviceContext,
  request: Request,
  wish: Wish,
  choose: Choose,
): FirstStageTable {
  if (request.type === "translated") return BARE; // T2GPA: the IOVA is a GPA
  if (!dc.pdtv) {
    const mode = firstStageMode(implementation, dc.sxl, bits(dc.fsc, 63n, 60n))!;
    return { mode, ppn: bits(dc.fsc, 43n, 0n), pscid: dc.pscid, sum: false };
  }
  if (request.processId === null && !dc.dpe) return BARE;
  if (bits(dc.fsc, 63n, 60n) === 0n) return BARE;
  const processId = request.processId ?? 0n;
  const pc = locateProcessContext({ implementation, tables, dc, choose }, dc, request.deviceId, processId, wish);
  if (supervisor(request) && !pc.ens) throw new Stop(260);
  return pc;
}

/** A request without a process_id is a User one (§3.3). */
function supervisor(request: Request): boolean {
  return request.processId !== null && request.privileged;
}

/** Steps 10 to 12: first stage, MSI check, second stage. */
function bothStages(
  implementation: Implementation,
  tables: Tables,
  dc: DeviceContext,
  request: Request,
  table: FirstStageTable,
  wish: Wish,
  choose: Choose,
): Found {
  const context = { implementation, tables, dc, choose };
  const first = firstStage(context, table, request.iova, supervisor(request), wish);
  const { gpa, memoryType, global } = first;
  if (isInterruptFile(dc, gpa)) {
    const target = translateMsi(context, gpa, request);
    const interruptFile = "interruptFile" in target ? target.interruptFile : null;
    const address = "address" in target ? target.address : gpa;
    return {
      address,
      gpa,
      r: first.r,
      w: first.w,
      x: false,
      memoryType,
      global,
      msi: true,
      interruptFile,
      widest: 4096n,
    };
  }
  const second = secondStage(context, gpa, "request", wish);
  return {
    address: second.address,
    gpa,
    r: first.r && second.r,
    w: first.w && second.w,
    x: first.x && second.x,
    memoryType: memoryType === 0n ? second.memoryType : memoryType,
    global,
    msi: false,
    interruptFile: null,
    widest: widestRange(dc, gpa, first.span, second.span),
  };
}

/** The smaller leaf, cut down until no interrupt-file page lies in it (§3.3.3, §3.8). */
function widestRange(dc: DeviceContext, gpa: bigint, first: bigint | null, second: bigint | null): bigint | null {
  if (first === null && second === null) return null;
  let bytes = first === null ? second! : second === null || first < second ? first : second;
  const meetsInterruptFile = () => {
    const fixed = ~dc.msi.mask & ~(bytes / 4096n - 1n) & ((1n << 52n) - 1n);
    return ((gpa >> 12n) & fixed) === (dc.msi.pattern & fixed);
  };
  while (dc.msi.on && bytes > 4096n && meetsInterruptFile()) bytes /= 2n;
  return bytes;
}

/** A Success completion (§3.6). */
function success(request: Request, dc: DeviceContext, found: Found): AtsCompletion {
  const withPasid = request.processId !== null;
  // A memory-resident interrupt file: U, and the rights of both stages, where its entry counts as a leaf with R, W, A and D (§3.3.3, §3.6).
  const u = found.interruptFile !== null;
  return {
    status: "success",
    r: found.r,
    w: found.w,
    exe: found.r && found.x && request.executeRequested,
    priv: withPasid && request.privileged,
    global: withPasid && !found.msi && found.global,
    u,
    translation: u
      ? null
      : {
          address: dc.t2gpa ? found.gpa : found.address,
          memoryType: found.memoryType,
          widest: found.widest,
          interruptFile: null,
        },
  };
}

/** How a fault answers an ATS request (§3.6). Corruption, which §3.6 does not list, aborts like the load faults beside it. */
function atsStatus(cause: number): AtsCompletion["status"] {
  if ([12, 13, 15, 20, 21, 23, 262, 266].includes(cause)) return "success";
  if ([256, 257, 258, 259, 260].includes(cause)) return "unsupported-request";
  return "completer-abort";
}

/** Causes reported whatever DTF says (§4.2, table). */
const REPORTED_DESPITE_DTF = [256, 257, 258, 259, 268, 272, 273];

function faultRecord(request: Request, stop: Stop, dc: DeviceContext | null): FaultRecord | null {
  if (dc?.dtf === true && !REPORTED_DESPITE_DTF.includes(stop.cause)) return null;
  const { processId, type, access } = request;
  const ttyp = type === "ats" ? 8 : { execute: 1, read: 2, write: 3 }[access] + (type === "translated" ? 4 : 0);
  return {
    cause: stop.cause,
    pid: processId ?? 0n,
    pv: processId !== null,
    priv: processId !== null && request.privileged,
    ttyp,
    did: request.deviceId,
    iotval: request.iova,
    iotval2: stop.iotval2,
  };
}
