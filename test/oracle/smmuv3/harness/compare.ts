/**
 * Whether an observed answer is one of those the oracle permits: result, event record and every doubleword stored.
 */
import type { Memory } from "../../memory.ts";
import { hex, storedWords, wrongStores } from "../../stores.ts";
import type { Observed, Subject } from "../adapter.ts";
import type { EventRecord, Outcome } from "../outcome.ts";

export type Verdict =
  /** `changed`: the doublewords that the SMMU changed, with what they hold now. */
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
  const names = any ? (["r", "w", "exe", "priv"] as const) : (["r", "w"] as const);
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

export function wrongRecord(records: Observed["records"], expected: EventRecord | null): string | null {
  if (expected === null) return records.length === 0 ? null : `expected no event, got ${showRecord(records[0]!)}`;
  if (records.length !== 1) return `expected one event (${showRecord(expected.doublewords)}), got ${records.length}`;
  const seen = records[0]!;
  const same = expected.doublewords.every(
    (value, index) => ((value ^ seen[index]!) & ~expected.unknown[index]!) === 0n,
  );
  return same ? null : `expected ${showRecord(expected.doublewords)}, got ${showRecord(seen)}`;
}

export function showRecord(doublewords: readonly bigint[]): string {
  return `event ${doublewords.map(hex).join(" ")}`;
}

function show(result: Observed["result"]): string {
  return result.kind === "translated" ? `address ${hex(result.address)}` : result.kind;
}
