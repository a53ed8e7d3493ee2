/**
 * The oracle as an implementation, for testing the harness: it answers with one of the outcomes it permits, the last (without caches: the only) one,
 * and can be made wrong in a chosen way.
 */

import { copyMemory, store, word } from "../../memory.ts";
import { allowedOutcomes, allowedOutcomesWithCaches, allowedPageRequestOutcomes } from "../allowed.ts";
import { MemoryHistory } from "../cached-tables.ts";
import type { Implementation } from "../implementation.ts";
import type { Command } from "../invalidation.ts";
import type { FaultRecord, Outcome, Request } from "../outcome.ts";
import { deliver, fileOf, openMessage } from "./compare.ts";
import type { MakeSubject, Observed } from "./subject.ts";

/** Ways to be wrong. */
export interface Mutation {
  readonly implementation?: (implementation: Implementation) => Implementation;
  readonly request?: (request: Request) => Request;
  readonly outcome?: (outcome: Outcome) => Outcome;
  /** False: the command does nothing. */
  readonly obeys?: (command: Command) => boolean;
}

export function oracleSubject(mutation: Mutation = {}): MakeSubject {
  return (implementation, ddtp, initial, caches) => {
    const memory = copyMemory(initial);
    const history = new MemoryHistory(memory);
    const actual = mutation.implementation?.(implementation) ?? implementation;

    /** Takes an outcome's effects over into memory. */
    function take(request: Request, delivers: boolean): { outcome: Outcome; storedPages: bigint[] } {
      const asked = mutation.request?.(request) ?? request;
      const outcomes =
        caches === "none"
          ? allowedOutcomes(actual, ddtp, memory, asked)!
          : allowedOutcomesWithCaches(actual, ddtp, history, asked)!;
      const last = outcomes[outcomes.length - 1]!;
      const outcome = mutation.outcome?.(last) ?? last;
      const after = copyMemory(memory);
      for (const { address, bytes, value } of outcome.writes) store(after, address, bytes, value);
      const storedPages = new Set(outcome.writes.map(({ address }) => address >> 12n));
      const file = fileOf(outcome);
      if (delivers && file !== null && !openMessage(file, request, memory)) {
        deliver(after, file);
        for (const at of [file.address, file.noticeAddress]) storedPages.add(at >> 12n);
      }
      history.change([...after.words].filter(([at, value]) => value !== word(memory, at)));
      return { outcome, storedPages: [...storedPages] };
    }

    return {
      request(request) {
        const { outcome, storedPages } = take(request, true);
        return { result: shown(outcome), records: recordsOf(outcome), storedPages };
      },
      debug(request) {
        const { outcome, storedPages } = take(request, false);
        const { result } = outcome;
        const translation = result.kind === "translated" && fileOf(outcome) === null ? result.translation : null;
        const bytes = translation?.widest ?? 4096n;
        const debug = {
          fault: translation === null,
          memoryType: translation?.memoryType ?? 0n,
          address: (translation?.address ?? 0n) & ~(bytes - 1n) & ((1n << 56n) - 1n), // 44 bits of PPN
          bytes,
        };
        return { result: { kind: "none" }, records: recordsOf(outcome), storedPages, debug };
      },
      pageRequest(request) {
        const past = caches === "none" ? memory : history;
        const outcome = allowedPageRequestOutcomes(actual, ddtp, past, request)!.at(-1)!;
        const page = {
          queued: outcome.kind === "queued" ? outcome.record : null,
          response:
            outcome.kind === "answered"
              ? { code: outcome.code, processId: outcome.processId, group: request.group }
              : null,
        };
        const records = outcome.kind === "queued" || outcome.fault === null ? [] : [outcome.fault];
        return { result: { kind: "none" }, records, storedPages: [], page };
      },
      invalidate(command) {
        if (mutation.obeys?.(command) !== false) history.invalidate(command);
        return true;
      },
      store(words) {
        history.change(words);
      },
      word: (address) => word(memory, address),
    };
  };
}

function recordsOf({ record }: Outcome): FaultRecord[] {
  return record === null ? [] : [record];
}

function shown({ result }: Outcome): Observed["result"] {
  if (result.kind === "aborted") return { kind: "aborted" };
  if (result.kind === "translated") {
    const { interruptFile, address } = result.translation;
    return interruptFile === null ? { kind: "translated", address } : { kind: "message" };
  }
  const { translation, ...completion } = result.completion;
  const bytes = translation?.widest ?? 4096n;
  return { kind: "ats", completion, address: (translation?.address ?? 0n) & ~(bytes - 1n), bytes };
}
