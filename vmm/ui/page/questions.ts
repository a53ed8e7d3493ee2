// The page's end of its worker: questions and their answers, in order. A question that takes too long is given up with the worker, and the next
// one gets another.

import type { Answer, Question } from "../run/worker.ts";

/** ms after which a run is given up: a guest that never ends. */
const LONGEST_RUN = 30_000;

type Result = Exclude<Answer, { readonly progress: number }>;

interface Waiting {
  readonly id: number;
  readonly question: Question;
  readonly transfer: Transferable[];
  readonly settle: (result: Result) => void;
  readonly progress: (part: number) => void;
  readonly instead: unknown;
}

/** Not state: the page's. */
export class Questions {
  #worker: Worker | null = null;
  readonly #queue: Waiting[] = [];
  #asked: Waiting | null = null;
  #timer = 0;
  #next = 1;
  readonly #limit: number;

  constructor(limit = LONGEST_RUN) {
    this.#limit = limit;
  }

  /** `instead`: a question that waits with the same mark is asked no more. */
  ask(
    question: Question,
    progress: (part: number) => void = () => {},
    transfer: Transferable[] = [],
    instead: unknown = null,
  ): Promise<Result> {
    return new Promise((settle) => {
      const before = instead === null ? -1 : this.#queue.findIndex((waiting) => waiting.instead === instead);
      if (before >= 0) {
        const [old] = this.#queue.splice(before, 1);
        old!.settle({ id: old!.id, problem: "nobody waits for it any more", bug: false });
      }
      this.#queue.push({ id: this.#next++, question, transfer, settle, progress, instead });
      this.#send();
    });
  }

  #send(): void {
    if (this.#asked !== null) return;
    const next = this.#queue.shift();
    if (next === undefined) return;
    this.#asked = next;
    this.#worker ??= this.#start();
    this.#worker.postMessage({ id: next.id, question: next.question }, next.transfer);
    this.#timer = window.setTimeout(() => this.#giveUp(), this.#limit);
  }

  #start(): Worker {
    const worker = new Worker(new URL("worker.js", document.baseURI), { type: "module" });
    worker.onmessage = ({ data }: MessageEvent<Answer>) => {
      if (data.id !== this.#asked?.id) return;
      if ("progress" in data) this.#asked.progress(data.progress);
      else this.#settle(data);
    };
    worker.onerror = (event) => {
      event.preventDefault();
      this.#end(event.message || "the page's worker could not be loaded", true);
    };
    return worker;
  }

  #giveUp(): void {
    this.#end(`it did not end within ${this.#limit / 1000} s, and was ended; an endless loop?`, false);
  }

  /** Ends the worker with what it is doing. */
  #end(problem: string, bug: boolean): void {
    this.#worker?.terminate();
    this.#worker = null;
    if (this.#asked !== null) this.#settle({ id: this.#asked.id, problem, bug });
  }

  #settle(result: Result): void {
    window.clearTimeout(this.#timer);
    const asked = this.#asked;
    this.#asked = null;
    asked?.settle(result);
    this.#send();
  }
}
