/**
 * The oracle as a unit, for testing the harness: it answers with the last of the outcomes it permits and does every update, and can be made wrong in a chosen
 * way.
 */
import { copyMemory, word } from "../../memory.ts";
import type { MakeSubject, Observed } from "../adapter.ts";
import { allowedInterrupts, allowedOutcomes, allowedOutcomesWithCaches } from "../allowed.ts";
import { MemoryHistory } from "../cached-tables.ts";
import type { Identification, Programming } from "../capabilities.ts";
import type { InterruptRequest } from "../interrupt.ts";
import type { Descriptor } from "../invalidation.ts";
import type { Outcome, Request } from "../outcome.ts";

/** Ways to be wrong. */
export interface Mutation {
  readonly identification?: (identification: Identification) => Identification;
  readonly programming?: (programming: Programming) => Programming;
  readonly request?: (request: Request) => Request;
  readonly interrupt?: (request: InterruptRequest) => InterruptRequest;
  readonly outcome?: (outcome: Outcome) => Outcome;
  /** False: the descriptor does nothing. */
  readonly obeys?: (descriptor: Descriptor) => boolean;
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
        for (const { address, mask } of outcome.updates) {
          history.change([[address, word(memory, address) | mask]]);
          storedPages.add(address >> 12n);
        }
        return {
          result: shown(outcome),
          records: outcome.record === null ? [] : [outcome.record.quadwords],
          storedPages: [...storedPages],
        };
      },
      interrupt(request) {
        const asked = mutation.interrupt?.(request) ?? request;
        const outcomes = allowedInterrupts(id, registers, caches === "none" ? memory : history, asked)!;
        const { result, record } = outcomes[outcomes.length - 1]!;
        return { result, records: record === null ? [] : [record.quadwords] };
      },
      invalidate(descriptor) {
        if (mutation.obeys?.(descriptor) !== false) history.invalidate(descriptor);
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
