/**
 * Whether an observed answer is one of those the oracle permits: result, fault record and every quadword stored.
 */
import type { Memory } from "../../memory.ts";
import { hex, storedWords, wrongStores } from "../../stores.ts";
import type { Observed, ObservedInterrupt, Subject } from "../adapter.ts";
import type { InterruptOutcome } from "../interrupt.ts";
import { FAULTS, type FaultRecord, type Outcome } from "../outcome.ts";

export type Verdict =
  /** `changed`: the quadwords that the unit changed, with what they hold now. */
  | { readonly agrees: true; readonly changed: readonly (readonly [bigint, bigint])[] }
  | { readonly agrees: false; readonly why: string };

export function compare(subject: Subject, memory: Memory, observed: Observed, outcomes: readonly Outcome[]): Verdict {
  const changed = storedWords(subject, memory, observed);
  const complaints = new Set<string>();
  for (const outcome of outcomes) {
    const why =
      wrongResult(observed.result, outcome) ??
      wrongRecord(observed.records, outcome.record) ??
      wrongStores(memory, outcome.updates, changed);
    if (why === null) return { agrees: true, changed };
    complaints.add(why);
  }
  return { agrees: false, why: [...complaints].join("\n  or: ") };
}

/** Null: one of those permitted. */
export function wrongInterrupt(observed: ObservedInterrupt, outcomes: readonly InterruptOutcome[]): string | null {
  const complaints = new Set<string>();
  for (const { result, record } of outcomes) {
    const same = text(result) === text(seenOf(observed.result, result));
    const why = same ? wrongRecord(observed.records, record) : `expected ${text(result)}, got ${text(observed.result)}`;
    if (why === null) return null;
    complaints.add(why);
  }
  return [...complaints].join("\n  or: ");
}

/** What was not seen of a remapped interrupt is taken as expected. */
function seenOf(seen: ObservedInterrupt["result"], expected: InterruptOutcome["result"]): ObservedInterrupt["result"] {
  if (seen.kind !== "remapped" || expected.kind !== "remapped") return seen;
  return { ...seen, interrupt: { ...expected.interrupt, ...seen.interrupt } };
}

function wrongResult(seen: Observed["result"], { result }: Outcome): string | null {
  if (result.kind === "translated") {
    return seen.kind === "translated" && seen.address === result.address
      ? null
      : `expected address ${hex(result.address)}, got ${show(seen)}`;
  }
  if (result.kind !== "ats") return seen.kind === result.kind ? null : `expected ${result.kind}, got ${show(seen)}`;
  if (seen.kind !== "ats") return `expected an ATS completion, got ${show(seen)}`;
  const { completion } = result;
  if (seen.completion.status !== completion.status)
    return `expected ATS status ${completion.status}, got ${seen.completion.status}`;
  if (completion.status !== "success") return null;
  const any = completion.r || completion.w;
  // Without rights the rest of a completion means nothing.
  const names = any ? (["r", "w", "priv"] as const) : (["r", "w"] as const);
  for (const name of names)
    if (seen.completion[name] !== completion[name])
      return `expected ATS ${name}=${completion[name]}, got ${seen.completion[name]}`;
  if (!any) return null;
  const { bytes } = seen;
  if (bytes < 4096n || (bytes & (bytes - 1n)) !== 0n) return `ATS range of ${hex(bytes)} bytes`;
  if (bytes > completion.widest) return `ATS range of ${hex(bytes)} bytes, at most ${hex(completion.widest)}`;
  const start = completion.address & ~(bytes - 1n);
  return seen.address === start ? null : `expected ATS address ${hex(start)}, got ${hex(seen.address)}`;
}

export function wrongRecord(
  records: readonly (readonly [bigint, bigint])[],
  expected: FaultRecord | null,
): string | null {
  if (expected === null) return records.length === 0 ? null : `expected no record, got ${showRecord(records[0]!)}`;
  if (records.length !== 1) return `expected one record (${showRecord(expected.quadwords)}), got ${records.length}`;
  const seen = records[0]!;
  const same = expected.quadwords.every((value, index) => ((value ^ seen[index]!) & ~expected.unknown[index]!) === 0n);
  return same ? null : `expected ${showRecord(expected.quadwords)}, got ${showRecord(seen)}`;
}

export function showRecord([low, high]: readonly [bigint, bigint]): string {
  const code = Number((high >> 32n) & 0xffn);
  return `record ${hex(BigInt(code))} (${FAULTS.get(code)?.name ?? "unknown"}) ${hex(low)} ${hex(high)}`;
}

function text(value: object): string {
  return JSON.stringify(value, (_key, part) => (typeof part === "bigint" ? hex(part) : part));
}

function show(result: Observed["result"]): string {
  return result.kind === "translated" ? `address ${hex(result.address)}` : result.kind;
}
