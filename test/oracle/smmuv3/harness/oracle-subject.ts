/**
 * The oracle as an SMMU, for testing the harness: it answers with the last of the outcomes it permits and does every update, and can be made wrong in a chosen
 * way.
 */
import { copyMemory, word } from "../../memory.ts";
import type { Command, MakeSubject, Observed } from "../adapter.ts";
import { allowedOutcomes, allowedOutcomesWithCaches } from "../allowed.ts";
import { MemoryHistory } from "../cached-tables.ts";
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
  return (identification, programming, initial, caches) => {
    const memory = copyMemory(initial);
    const history = new MemoryHistory(memory);
    const id = mutation.identification?.(identification) ?? identification;
    const registers = mutation.programming?.(programming) ?? programming;
    return {
      request(request) {
        const asked = mutation.request?.(request) ?? request;
        const outcomes =
          caches === "none"
            ? allowedOutcomes(id, registers, memory, asked)!
            : allowedOutcomesWithCaches(id, registers, history, asked)!;
        const last = outcomes[outcomes.length - 1]!;
        const outcome = mutation.outcome?.(last) ?? last;
        const storedPages = new Set<bigint>();
        for (const { address, mask, value } of outcome.updates) {
          history.change([[address, (word(memory, address) & ~mask) | value]]);
          storedPages.add(address >> 12n);
        }
        return {
          result: shown(outcome),
          records: outcome.record === null ? [] : [outcome.record.doublewords],
          storedPages: [...storedPages],
        };
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
  if (result.kind !== "ats") return result;
  const { address, widest, ...completion } = result.completion;
  const bytes = widest < 4096n ? 4096n : widest;
  return { kind: "ats", completion, address: address & ~(bytes - 1n), bytes };
}
