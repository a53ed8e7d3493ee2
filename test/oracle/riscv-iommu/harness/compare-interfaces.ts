/**
 * The debug interface (§5) and page requests (§3.7) compared with the oracle.
 */
import type { Memory } from "../../memory.ts";
import { hex, storedWords } from "../../stores.ts";
import type { Outcome } from "../outcome.ts";
import type { PageRequest, PageRequestOutcome } from "../page-request.ts";
import { fileOf, showRecord, type Verdict, wrongRecord, wrongStores } from "./compare.ts";
import type { DebugAnswer, Observed, PageRequestAnswer, Subject } from "./subject.ts";

export function compareDebug(
  subject: Subject,
  memory: Memory,
  observed: Observed & { readonly debug: DebugAnswer },
  outcomes: readonly Outcome[],
): Verdict {
  const changed = storedWords(subject, memory, observed);
  const complaints: string[] = [];
  for (const outcome of outcomes) {
    const why =
      wrongAnswer(observed, outcome) ??
      // A message target has a record of its own, 260, that DTF may have silenced.
      (fileOf(outcome) !== null ? null : wrongRecord(observed.records, outcome)) ??
      wrongStores(memory, outcome, null, changed);
    if (why === null) return { agrees: true, changed };
    complaints.push(why);
  }
  return { agrees: false, why: complaints.join("\n  or: ") };
}

function wrongAnswer({ debug, records }: Observed & { readonly debug: DebugAnswer }, outcome: Outcome): string | null {
  const { result } = outcome;
  if (result.kind === "aborted") return debug.fault ? null : `expected a debug fault of cause ${result.cause}`;
  if (result.kind !== "translated") return "only untranslated requests are put to the debug interface";
  const { translation } = result;
  if (translation.interruptFile !== null) {
    const other = records.find(({ cause }) => cause !== 260);
    if (other !== undefined) return `expected cause 260 for a message target, got ${showRecord(other)}`;
    return debug.fault ? null : "expected a debug fault: the target is a memory-resident interrupt file";
  }
  if (debug.fault) return `expected debug address ${hex(translation.address)}, got a fault`;
  if (debug.memoryType !== translation.memoryType) {
    return `expected debug PBMT ${translation.memoryType}, got ${debug.memoryType}`;
  }
  if (translation.widest !== null && debug.bytes > translation.widest) {
    return `debug range of ${hex(debug.bytes)} bytes, at most ${hex(translation.widest)}`;
  }
  // tr_response.PPN holds 44 bits (§6.26).
  const start = translation.address & ~(debug.bytes - 1n) & ((1n << 56n) - 1n);
  return debug.address === start ? null : `expected debug range at ${hex(start)}, got ${hex(debug.address)}`;
}

/** Null if the answer is one of those permitted. */
export function wrongPageRequest(
  observed: Observed & { readonly page: PageRequestAnswer },
  request: PageRequest,
  outcomes: readonly PageRequestOutcome[],
): string | null {
  const complaints = new Set<string>();
  for (const outcome of outcomes) {
    const why = otherThan(outcome, observed, request);
    if (why === null) return null;
    complaints.add(why);
  }
  return [...complaints].join("\n  or: ");
}

function otherThan(
  expected: PageRequestOutcome,
  { page, records }: Observed & { readonly page: PageRequestAnswer },
  request: PageRequest,
): string | null {
  const show = () => `queued ${page.queued}, response ${page.response?.code}`;
  if (expected.kind === "queued") {
    const [low, high] = page.queued ?? [null, null];
    if (low !== expected.record[0] || high !== expected.record[1])
      return `expected record ${expected.record}, got ${show()}`;
  } else if (page.queued !== null) return `expected no page-request record, got ${show()}`;
  if (expected.kind === "answered") {
    const { response } = page;
    const same =
      response?.code === expected.code && response.processId === expected.processId && response.group === request.group;
    if (!same) return `expected response ${expected.code} (process ${expected.processId}), got ${show()}`;
  } else if (page.response !== null) return `expected no response, got ${show()}`;
  const fault = expected.kind === "queued" ? null : expected.fault;
  if (fault === null) return records.length === 0 ? null : `expected no fault record, got ${showRecord(records[0]!)}`;
  const seen = records[0];
  if (records.length !== 1 || seen === undefined) return `expected one fault record, got ${records.length}`;
  const names = ["cause", "pid", "pv", "priv", "ttyp", "did", "iotval", "iotval2"] as const;
  return names.every((name) => seen[name] === fault[name])
    ? null
    : `expected ${showRecord(fault)}, got ${showRecord(seen)}`;
}
