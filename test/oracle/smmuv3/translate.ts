/**
 * A request from start to end (§3.3.3, §7.3.22): which structures it meets in which order, and what becomes of its faults (§5.5, §3.9.1).
 */
import type { Choose } from "../latitude.ts";
import { ALL_RIGHTS, both, granted, permitted, type Rights, TABLE_READ, type Wish, wishOf } from "./access.ts";
import { decodeContextDescriptor, illegalContextDescriptor, locateContextDescriptor } from "./context-descriptor.ts";
import { type Attributes, eventRecord } from "./event-record.ts";
import {
  bit,
  type Controls,
  controls,
  type Features,
  features,
  type Identification,
  type Programming,
} from "./identification.ts";
import { type AtsCompletion, Fault, type Outcome, type Request, type Result, SilentAbort } from "./outcome.ts";
import { type Stage1Result, stage1 } from "./stage-1.ts";
import { stage2 } from "./stage-2.ts";
import { locateStreamTableEntry } from "./stream-table.ts";
import {
  decodeStreamTableEntry,
  effectiveEATS,
  hasSubstreams,
  illegalStreamTableEntry,
  type StreamTableEntry,
  streamWorld,
  virtualMachine,
} from "./stream-table-entry.ts";
import type { Tables } from "./tables.ts";
import { WRITE_CONTROL } from "./translation-table.ts";

interface Run {
  readonly f: Features;
  readonly c: Controls;
  readonly programming: Programming;
  readonly tables: Tables;
  readonly request: Request;
  readonly choose: Choose;
  /** What the event record says of the request, once the stream table entry is known. */
  attributes: Attributes;
}

/** Faults that a Translation Request is answered with "no rights" for (§3.9.1.2). */
const DENIED = ["F_TRANSLATION", "F_ADDR_SIZE", "F_ACCESS", "F_PERMISSION"];

export function translate(
  identification: Identification,
  programming: Programming,
  tables: Tables,
  request: Request,
  choose: Choose,
): Outcome {
  const f = features(identification);
  const c = controls(identification, programming);
  const attributes = { privileged: false, instruction: false };
  const run: Run = { f, c, programming, tables, request, choose, attributes };
  try {
    const result = request.kind === "ats" ? atsRequest(run) : transaction(run);
    return { result, record: null, updates: tables.updates };
  } catch (stop) {
    // What was updated on the way to a fault may stay as it was: walks may be speculative, and §3.13.2 leaves it UNKNOWN.
    const updates = tables.updates.map((update) => ({ ...update, required: false }));
    if (!(stop instanceof Fault) && !(stop instanceof SilentAbort)) throw stop;
    return { ...(request.kind === "ats" ? atsRefusal(run, stop) : termination(run, stop)), updates };
  }
}

function transaction(run: Run): Result {
  const { f, c, request, choose } = run;
  const { iova } = request;
  const beyond = iova >> f.OAS !== 0n;
  if (request.kind === "translated") return translatedTransaction(run, beyond);
  if (!c.SMMUEN) {
    if (c.abortAll || beyond) throw new SilentAbort();
    return { kind: "translated", address: iova };
  }
  const ste = streamTableEntry(run);
  const wish = wishOf(request, ste);
  run.attributes = attributesOf(wish);
  return { kind: "translated", address: stages(run, ste, wish, true).address };

  function translatedTransaction({ f, c }: Run, beyond: boolean): Result {
    if (!c.SMMUEN) throw new Fault("F_TRANSL_FORBIDDEN");
    /** §3.9.1.1: an abort that is not recorded, or truncation. */
    const passes = (): Result => {
      if (beyond && choose(2, "§3.9.1.1: a translated address beyond the OAS") === 0) throw new SilentAbort();
      return { kind: "translated", address: iova & ((1n << f.OAS) - 1n) };
    };
    if (!c.ATSCHK) return passes();
    const ste = streamTableEntry(run);
    const eats = effectiveEATS(f, c, ste);
    if (eats === 0n) throw new Fault("F_TRANSL_FORBIDDEN");
    if (eats === 1n) return passes();
    if (beyond && choose(2, "§3.9.1.1: a translated IPA beyond the OAS") === 0) throw new SilentAbort();
    const wish = wishOf(request, ste);
    run.attributes = attributesOf(wish);
    const context = { ...run, ste, vmid: virtualMachine(f, c, ste) };
    return { kind: "translated", address: stage2(context, iova, "IN", wish, null).address };
  }
}

function atsRequest(run: Run): Result {
  const { f, c, request, tables, choose } = run;
  if (!c.SMMUEN) throw new Fault("F_BAD_ATS_TREQ");
  const ste = streamTableEntry(run);
  const eats = effectiveEATS(f, c, ste);
  if (eats === 0n) throw new Fault("F_BAD_ATS_TREQ");
  const wish = wishOf(request, ste) as Wish & { kind: "ats" };
  run.attributes = attributesOf(wish);
  const found = stages(run, ste, wish, eats === 1n);
  const rights = granted(wish, found.rights, choose);
  const any = rights.r || rights.w || rights.exe;
  for (const [index, update] of tables.updates.entries()) {
    // §13.7: AF with any right granted; dirty state with the right to write.
    const dirty = (update.mask & (WRITE_CONTROL | (WRITE_CONTROL << 56n))) !== 0n;
    if (!any || (dirty && !rights.w)) tables.updates[index] = { ...update, required: false };
  }
  const address = eats === 1n ? found.address : found.ipa;
  return {
    kind: "ats",
    completion: { status: "success", ...rights, priv: priv(request), address, widest: found.span },
  };
}

function priv({ ssid, privileged }: Request): boolean {
  return ssid !== null && privileged;
}

function attributesOf(wish: Wish): Attributes {
  return { privileged: wish.privileged, instruction: wish.kind === "access" && wish.right === "x" };
}

/** Steps 2 to 4. */
function streamTableEntry({ f, programming, tables, request, choose }: Run): StreamTableEntry {
  const doublewords = locateStreamTableEntry(f, programming, tables, request.sid, choose);
  const ste = decodeStreamTableEntry(f, doublewords);
  if (illegalStreamTableEntry(f, doublewords[0]!, ste, choose)) throw new Fault("C_BAD_STE");
  if (!bit(ste.Config, 2n)) throw new SilentAbort();
  return ste;
}

/** Step 6; tells whether stage 1 translates. */
function substreamChecks({ f, request: { ssid } }: Run, ste: StreamTableEntry): boolean {
  if (ssid !== null) {
    const allowed = ste.stage1 && ste.S1CDMax !== 0n && f.SSIDSIZE !== 0n && ssid >> ste.S1CDMax === 0n;
    if (!allowed) throw new Fault("C_BAD_SUBSTREAMID");
  }
  if (!hasSubstreams(f, ste)) return ste.stage1;
  if (ssid === 0n && ste.S1DSS === 2n) throw new Fault("F_STREAM_DISABLED");
  if (ssid !== null || ste.S1DSS === 2n) return true;
  if (ste.S1DSS === 1n) return false;
  throw new Fault("F_STREAM_DISABLED");
}

interface Found {
  readonly ipa: bigint;
  readonly address: bigint;
  readonly rights: Rights;
  readonly span: bigint;
}

/** Steps 6 to 10. `finalUpdates`: what stage 2 notes for the final address is required (not of split-stage ATS, §3.13.7.1). */
function stages(run: Run, ste: StreamTableEntry, wish: Wish, finalUpdates: boolean): Found {
  const { f, c, tables, request, choose } = run;
  const translatesStage1 = substreamChecks(run, ste);
  const world = streamWorld(f, c, ste);
  const context = { f, tables, ste, vmid: virtualMachine(f, c, ste), choose };
  let first: Omit<Stage1Result, "tag"> = { ipa: request.iova, rights: ALL_RIGHTS, span: 1n << f.OAS };
  let tag: Stage1Result["tag"] | null = null;
  if (translatesStage1) {
    const physical = (address: bigint) =>
      ste.stage2 ? stage2(context, address, "CD", TABLE_READ, null).address : address;
    const doublewords = locateContextDescriptor({ ...context, physical }, request.sid, request.ssid ?? 0n);
    const cd = decodeContextDescriptor(f, world, doublewords);
    if (illegalContextDescriptor(f, ste, world, cd)) throw new Fault("C_BAD_CD");
    const found = stage1({ ...context, world, cd }, request.iova, wish);
    first = found;
    tag = found.tag;
  } else if (request.iova >> f.IAS !== 0n) {
    // Whatever a context descriptor would say: there is none (§3.4, §7.3.14).
    throw new Fault("F_ADDR_SIZE", { stage: 1, class: "IN" });
  }
  // A Translation Request that stage 1 grants nothing does not go to stage 2 (§3.9.1.2).
  if (!ste.stage2 || !permitted(wish, first.rights))
    return { ipa: first.ipa, address: first.ipa, rights: first.rights, span: first.span };
  // Stage 2 is not marked dirty for a write that stage 1 forbids (§3.13.7.1).
  const wish2 = wish.kind === "ats" ? { ...wish, write: wish.write && first.rights.w } : wish;
  const second = stage2(context, first.ipa, "IN", wish2, tag, finalUpdates);
  const span = first.span < second.span ? first.span : second.span;
  return { ipa: first.ipa, address: second.address, rights: both(first.rights, second.rights), span };
}

/** What becomes of a transaction that faults (§5.5). */
function termination(run: Run, stop: Fault | SilentAbort): Omit<Outcome, "updates"> {
  const { f, c, request, attributes } = run;
  if (stop instanceof SilentAbort) return { result: { kind: "aborted" }, record: null };
  const { model } = stop.details;
  const record = eventRecord(f, request, stop, attributes, model?.stall ?? false);
  if (model === undefined) return { result: { kind: "aborted" }, record: recorded(run, stop) ? record : null };
  if (model.stall) return { result: { kind: "stalled" }, record };
  return { result: { kind: model.abort ? "aborted" : "raz-wi" }, record: model.record ? record : null };

  function recorded({ request }: Run, { event }: Fault): boolean {
    // §3.9.1.3: RECINVSID does not matter for Translated transactions.
    if (request.kind === "translated")
      return c.REC_CFG_ATS || event === "F_TRANSL_FORBIDDEN" || event === "F_WALK_EABT";
    return event !== "C_BAD_STREAMID" || c.RECINVSID;
  }
}

/** The completion of a Translation Request that is refused (§3.9.1.2). */
function atsRefusal(run: Run, stop: Fault | SilentAbort): Omit<Outcome, "updates"> {
  const { f, c, request, attributes } = run;
  const answer = (status: AtsCompletion["status"]): Result => ({
    kind: "ats",
    completion: { status, r: false, w: false, exe: false, priv: priv(request), address: 0n, widest: 0n },
  });
  if (stop instanceof SilentAbort) return { result: answer("unsupported-request"), record: null };
  const record = eventRecord(f, request, stop, attributes, false);
  if (stop.event === "F_BAD_ATS_TREQ") return { result: answer("unsupported-request"), record };
  if (DENIED.includes(stop.event)) return { result: answer("success"), record: null };
  const wanted = c.REC_CFG_ATS && (stop.event !== "C_BAD_STREAMID" || c.RECINVSID);
  return { result: answer("completer-abort"), record: wanted ? record : null };
}
