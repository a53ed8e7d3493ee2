/**
 * The oracle as an implementation, for testing the harness: it answers with one of the outcomes it permits, the last (without caches: the only) one,
 * and can be made wrong in a chosen way.
 */
import { allowedOutcomes, allowedOutcomesWithCaches } from "../allowed.ts";
import { MemoryHistory } from "../cached-tables.ts";
import type { Implementation } from "../implementation.ts";
import type { Command } from "../invalidation.ts";
import { copyMemory, store, word } from "../memory.ts";
import type { Outcome, Request } from "../outcome.ts";
import { deliver, openMessage } from "./compare.ts";
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
    return {
      request(request): Observed {
        const asked = mutation.request?.(request) ?? request;
        const outcomes = caches
          ? allowedOutcomesWithCaches(actual, ddtp, history, asked)!
          : allowedOutcomes(actual, ddtp, memory, asked)!;
        const last = outcomes[outcomes.length - 1]!;
        const outcome = mutation.outcome?.(last) ?? last;
        const after = copyMemory(memory);
        for (const { address, bytes, value } of outcome.writes) store(after, address, bytes, value);
        const storedPages = new Set(outcome.writes.map(({ address }) => address >> 12n));
        const file = outcome.result.kind === "translated" ? outcome.result.translation.interruptFile : null;
        if (file !== null && !openMessage(file, request, memory)) {
          deliver(after, file);
          for (const at of [file.address, file.noticeAddress]) storedPages.add(at >> 12n);
        }
        history.change([...after.words].filter(([at, value]) => value !== word(memory, at)));
        const records = outcome.record === null ? [] : [outcome.record];
        return { result: shown(outcome), records, storedPages: [...storedPages] };
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
