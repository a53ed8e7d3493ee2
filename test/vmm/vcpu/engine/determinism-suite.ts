// The tests of determinism of an instruction set: random instruction streams, and random programs that keep the rules, on every configuration.
import { beforeAll, describe, expect, it, vi } from "vitest";
import type { EngineCore, EngineExports } from "../../../../vmm/vcpu/engine/core.ts";
import { CONFIGURATIONS, type Configuration, INTERPRETED, MACHINES } from "./configurations.ts";
import { type FencingGuest, type Ran, runGuest } from "./fencing-program.ts";

/** What an instruction set has for it. */
export interface Guests {
  /** A stream's end, in words. */
  stream(seed: number, configuration: Configuration): string;
  run(seed: number, configuration: Configuration): Ran;
}

export const guestsOf = <Core extends EngineCore<EngineExports>>(
  stream: (seed: number, configuration: Configuration) => string,
  guest: FencingGuest<Core>,
): Guests => ({ stream, run: (seed, configuration) => runGuest(guest, seed, configuration) });

const STREAMS = [300, 301, 302];
/** One on each machine. */
const PROGRAMS = MACHINES.map((_, n) => 1 + n);

/** Modules as they are where WebAssembly has no vectors. */
export async function withoutVectors<T>(load: () => Promise<T>): Promise<T> {
  vi.resetModules();
  const validate = vi.spyOn(WebAssembly, "validate").mockReturnValue(false);
  try {
    return await load();
  } finally {
    validate.mockRestore();
    vi.resetModules();
  }
}

/** `load` imports the core and all that stands on it anew. */
export function determinismOf(load: () => Promise<Guests>): void {
  let guests: Guests;
  let vectorless: Guests;
  let streams: readonly string[];
  let programs: readonly Ran[];
  beforeAll(async () => {
    guests = await load();
    vectorless = await withoutVectors(load);
    streams = STREAMS.map((seed) => guests.stream(seed, INTERPRETED));
    programs = PROGRAMS.map((seed) => guests.run(seed, INTERPRETED));
  });

  describe.each(CONFIGURATIONS)("$name", (configuration) => {
    const { translate, debugged, moved, vectors } = configuration;

    it("random instruction streams end as they do interpreted", () => {
      const { stream } = vectors === false ? vectorless : guests;
      STREAMS.forEach((seed, n) => {
        expect(stream(seed, configuration), `stream ${seed}`).toBe(streams[n]);
      });
    });

    it("programs that fence what they change run as they do interpreted", () => {
      const { run } = vectors === false ? vectorless : guests;
      const did = { translations: 0, moves: 0, stops: 0 };
      PROGRAMS.forEach((seed, n) => {
        const { told, ...seen } = run(seed, configuration);
        const { told: _, ...interpreted } = programs[n]!;
        expect(seen, `program ${seed}`).toEqual(interpreted);
        did.translations += told.translations;
        did.moves += told.moves;
        did.stops += told.stops;
      });
      // that it has been run as it is said to have been
      if (translate === false) expect(did.translations).toBe(0);
      else if (translate !== true && translate.samples < 3) expect(did.translations > 0).toBe(translate.samples > 0);
      expect(did.moves > 0).toBe(moved !== undefined);
      expect(did.stops > 0).toBe(debugged === true);
    });
  });
}
