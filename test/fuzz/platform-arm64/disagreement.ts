/** What a round of a fuzzer found. */
export class Disagreement extends Error {}

export function expectSame<T extends number | boolean | string | bigint>(what: string, ours: T, oracle: T): void {
  if (ours !== oracle) throw new Disagreement(`${what}: ${ours}, the oracle says ${oracle}`);
}
