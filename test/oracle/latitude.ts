/**
 * Where the specification leaves a choice, the oracle asks `choose` and goes on with the answer; `everyOutcome` runs it once for each
 * possible sequence of answers. So the permitted outcomes of a request are an enumeration, and each choice stands where it arises.
 */

/** Picks one of `count` alternatives; `why` cites the rule that leaves them open. */
export type Choose = (count: number, why: string) => number;

/** Thrown by a run that took alternatives which cannot go together; such a run has no outcome. */
export class Impossible {
  readonly why: string;
  constructor(why: string) {
    this.why = why;
  }
}

/** More than this many runs are not enumerated: the caller learns that the answer is open. */
export const MOST_RUNS = 3000;

/** All distinct runs of `run`, or null if there are more than `mostRuns`. */
export function everyOutcome<T>(run: (choose: Choose) => T, mostRuns: number = MOST_RUNS): T[] | null {
  const outcomes: T[] = [];
  const answers: number[] = [];
  const counts: number[] = [];
  for (let runs = 0; ; runs++) {
    if (runs === mostRuns) return null;
    let asked = 0;
    const choose: Choose = (count) => {
      if (asked === answers.length) {
        answers.push(0);
        counts.push(count);
      }
      return answers[asked++]!;
    };
    try {
      outcomes.push(run(choose));
    } catch (error) {
      if (!(error instanceof Impossible)) throw error;
    }
    // The next sequence of answers in lexical order.
    while (answers.length > 0 && answers[answers.length - 1]! + 1 >= counts[counts.length - 1]!) {
      answers.pop();
      counts.pop();
    }
    if (answers.length === 0) return outcomes;
    answers[answers.length - 1]!++;
  }
}
