// Proof that a fuzzer of hostile guests finds what it looks for: a bug planted at a door between rooms must show.

import { makeOperations, type Operation, Random } from "./operations.ts";

interface Guest {
  readonly problem: string | null;
  step(operation: Operation): void;
  finish(): void;
}

/** Runs seeds with a bug until it shows; the problem, or null. */
export function hunt<G extends Guest>(make: (seed: number) => G, plant: (guest: G) => void): string | null {
  for (let seed = 1; seed <= 120; seed++) {
    const guest = make(seed);
    plant(guest);
    for (const operation of makeOperations(new Random(seed), 1_000)) {
      guest.step(operation);
      if (guest.problem !== null) return guest.problem;
    }
    guest.finish();
    if (guest.problem !== null) return guest.problem;
  }
  return null;
}
