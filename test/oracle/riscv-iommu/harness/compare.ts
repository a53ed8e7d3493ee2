/**
 * Whether an observed answer is one of those the oracle permits: result, fault record and every word stored.
 */
import { copyMemory, type Memory, store, word } from "../../memory.ts";
import { hex, storedWords } from "../../stores.ts";
import type { FaultRecord, InterruptFile, Outcome, Request } from "../outcome.ts";
import type { Observed, Subject } from "./subject.ts";

/** Payload of a write that may be a message: an interrupt identity (AIA). */
export const MESSAGE_IDENTITY = 77;

export type Verdict =
  /** `changed`: the words that the implementation changed. */
  | { readonly agrees: true; readonly changed: readonly (readonly [bigint, bigint])[] }
  | { readonly agrees: false; readonly why: string };

export function compare(
  subject: Subject,
  memory: Memory,
  request: Request,
  observed: Observed,
  outcomes: readonly Outcome[],
): Verdict {
  const changed = storedWords(subject, memory, observed);
  const complaints: string[] = [];
  for (const outcome of outcomes) {
    const file = fileOf(outcome);
    if (file !== null && openMessage(file, request, memory)) return { agrees: true, changed };
    const why =
      wrongResult(observed, outcome) ??
      wrongRecord(observed.records, outcome) ??
      wrongStores(memory, outcome, file, changed);
    if (why === null) return { agrees: true, changed };
    if (!complaints.includes(why)) complaints.push(why);
  }
  return { agrees: false, why: complaints.join("\n  or: ") };
}

/** The memory-resident interrupt file that a translation ended in. */
export function fileOf({ result }: Outcome): InterruptFile | null {
  return result.kind === "translated" ? result.translation.interruptFile : null;
}

/**
 * Accesses to a memory-resident interrupt file other than a write of a valid identity to its first word are the interrupt architecture's business,
 * not this specification's: nothing is compared then. Nor is it where the file or the notice cannot be written (264, 271: in the table of cases).
 */
export function openMessage(file: InterruptFile, request: Request, memory: Memory): boolean {
  if (request.access !== "write" || (request.iova & 0xfffn) !== 0n) return true;
  const places = [pendingAt(file), file.noticeAddress];
  return places.some((at) => !memory.pages.has(at >> 12n) || memory.injected.has(at & ~7n));
}

/** The doubleword with the pending bit of MESSAGE_IDENTITY. */
function pendingAt(file: InterruptFile): bigint {
  return file.address + BigInt(Math.floor(MESSAGE_IDENTITY / 64)) * 16n;
}

function wrongResult({ result }: Observed, outcome: Outcome): string | null {
  const expected = outcome.result;
  if (expected.kind === "aborted")
    return result.kind === "aborted" ? null : `expected cause ${expected.cause}, got ${show(result)}`;
  if (expected.kind === "translated") {
    const { interruptFile, address } = expected.translation;
    if (interruptFile !== null)
      return result.kind === "message" ? null : `expected a message to be taken, got ${show(result)}`;
    return result.kind === "translated" && result.address === address
      ? null
      : `expected address ${hex(address)}, got ${show(result)}`;
  }
  const { translation, ...bits } = expected.completion;
  if (result.kind !== "ats") return `expected an ATS completion, got ${show(result)}`;
  const seen = result.completion;
  if (seen.status !== bits.status) return `expected ATS status ${bits.status}, got ${seen.status}`;
  if (bits.status !== "success") return null;
  const names = ["r", "w", "exe", "priv", "global", "u"] as const;
  // Without rights the rest of a completion means nothing.
  const compared = bits.r || bits.w ? names : (["r", "w"] as const);
  for (const name of compared)
    if (seen[name] !== bits[name]) return `expected ATS ${name}=${bits[name]}, got ${seen[name]}`;
  if (translation === null || !(bits.r || bits.w)) return null;
  const { address, widest } = translation;
  if (result.bytes < 4096n || (result.bytes & (result.bytes - 1n)) !== 0n) return `ATS range of ${result.bytes} bytes`;
  if (widest !== null && result.bytes > widest)
    return `ATS range of ${hex(result.bytes)} bytes, at most ${hex(widest)}`;
  const start = address & ~(result.bytes - 1n);
  return result.address === start ? null : `expected ATS address ${hex(start)}, got ${hex(result.address)}`;
}

export function wrongRecord(records: readonly FaultRecord[], { record }: Outcome): string | null {
  if (record === null) return records.length === 0 ? null : `expected no record, got ${showRecord(records[0]!)}`;
  if (records.length !== 1) return `expected one record (cause ${record.cause}), got ${records.length}`;
  const seen = records[0]!;
  // The offset in the page may be 0 in iotval (§4.2).
  const sameIova = seen.iotval === record.iotval || seen.iotval === (record.iotval & ~0xfffn);
  const names = ["cause", "pid", "pv", "priv", "ttyp", "did", "iotval2"] as const;
  return sameIova && names.every((name) => seen[name] === record[name])
    ? null
    : `expected ${showRecord(record)}, got ${showRecord(seen)}`;
}

/** `file` is the interrupt file that a message is delivered to, if one is. */
export function wrongStores(
  memory: Memory,
  outcome: Outcome,
  file: InterruptFile | null,
  changed: readonly (readonly [bigint, bigint])[],
): string | null {
  if (outcome.writes.length === 0 && changed.length === 0 && file === null) return null;
  const expected = copyMemory(memory);
  for (const { address, bytes, value } of outcome.writes) store(expected, address, bytes, value);
  if (file !== null) deliver(expected, file);
  const optional = new Map<bigint, bigint>();
  for (const { address, bytes, value } of outcome.optional) {
    const at = address & ~7n;
    const mask = bytes === 8 || (address & 4n) === 0n ? value : value << 32n;
    optional.set(at, (optional.get(at) ?? 0n) | mask);
  }
  const addresses = new Set(changed.map(([at]) => at));
  for (const { address } of outcome.writes) addresses.add(address & ~7n);
  if (file !== null) for (const at of [pendingAt(file), file.noticeAddress & ~7n]) addresses.add(at);
  const seen = new Map(changed);
  for (const at of addresses) {
    const now = seen.get(at) ?? word(memory, at);
    const should = word(expected, at);
    if ((now ^ should) & ~(optional.get(at) ?? 0n)) return `expected ${hex(should)} at ${hex(at)}, got ${hex(now)}`;
    if ((now & should) !== should) return `expected ${hex(should)} at ${hex(at)}, got ${hex(now)}`;
  }
  return null;
}

/**
 * AIA, "MSI PTE, MRIF mode": the pending bit of the identity is set, then the notice is written, always: the enable bit has no say ("Recording of incoming
 * MSIs"). Both are little-endian.
 */
export function deliver(memory: Memory, file: InterruptFile): void {
  const at = pendingAt(file);
  memory.words.set(at, word(memory, at) | (1n << BigInt(MESSAGE_IDENTITY % 64)));
  store(memory, file.noticeAddress, 4, file.noticeIdentity);
}

function show(result: Observed["result"]): string {
  if (result.kind === "translated") return `address ${hex(result.address)}`;
  return result.kind;
}

export function showRecord(record: FaultRecord): string {
  const { cause, pid, pv, priv, ttyp, did, iotval, iotval2 } = record;
  return `record cause ${cause} ttyp ${ttyp} did ${hex(did)} pv ${pv} pid ${hex(pid)} priv ${priv} iotval ${hex(iotval)} iotval2 ${hex(iotval2)}`;
}
