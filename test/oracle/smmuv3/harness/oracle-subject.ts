/**
 * The oracle as an SMMU, for testing the harness: it answers with the last of the outcomes it permits and does every update, and can be made wrong in a chosen
 * way.
 */
import { copyMemory, word } from "../../memory.ts";
import type { Command, MakeSubject, Observed } from "../adapter.ts";
import { allowedOutcomes } from "../allowed.ts";
import type { Identification, Programming } from "../identification.ts";
import type { Outcome, Request } from "../outcome.ts";

/** Ways to be wrong. */
export interface Mutation {
  readonly identification?: (identification: Identification) => Identification;
  readonly programming?: (programming: Programming) => Programming;
  readonly request?: (request: Request) => Request;
  readonly outcome?: (outcome: Outcome) => Outcome;
  /** False: the command does nothing. */
  readonly obeys?: (command: Command) => boolean;
}

export function oracleSubject(mutation: Mutation = {}): MakeSubject {
  return (identification, programming, initial) => {
    const memory = copyMemory(initial);
    const id = mutation.identification?.(identification) ?? identification;
    const registers = mutation.programming?.(programming) ?? programming;
    return {
      request(request) {
        const outcomes = allowedOutcomes(id, registers, memory, mutation.request?.(request) ?? request)!;
        const last = outcomes[outcomes.length - 1]!;
        const outcome = mutation.outcome?.(last) ?? last;
        const storedPages = new Set<bigint>();
        for (const { address, mask, value } of outcome.updates) {
          memory.words.set(address, (word(memory, address) & ~mask) | value);
          storedPages.add(address >> 12n);
        }
        return {
          result: shown(outcome),
          records: outcome.record === null ? [] : [outcome.record.doublewords],
          storedPages: [...storedPages],
        };
      },
      invalidate: () => true,
      store(words) {
        for (const [at, value] of words) memory.words.set(at, value);
      },
      word: (address) => word(memory, address),
    };
  };
}

function shown({ result }: Outcome): Observed["result"] {
  if (result.kind !== "ats") return result;
  const { address, widest, ...completion } = result.completion;
  const bytes = widest < 4096n ? 4096n : widest;
  return { kind: "ats", completion, address: address & ~(bytes - 1n), bytes };
}
