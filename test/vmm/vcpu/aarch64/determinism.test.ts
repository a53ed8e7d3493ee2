// One guest, every configuration of the engine (../engine/configurations.ts): the same to the instruction.
import { describe, expect, it } from "vitest";
import { stream } from "../../../fuzz/cpu-arm64.ts";
import { CONFIGURATIONS, INTERPRETED } from "../engine/configurations.ts";
import { coreModule } from "./core-module.ts";

const SEEDS = [300, 301, 302, 303];

describe("random instruction streams", () => {
  const interpreted = SEEDS.map((seed) => stream(coreModule(), seed, INTERPRETED));
  it.each(CONFIGURATIONS)("end as they do interpreted: $name", (configuration) => {
    expect(SEEDS.map((seed) => stream(coreModule(), seed, configuration))).toEqual(interpreted);
  });
});
