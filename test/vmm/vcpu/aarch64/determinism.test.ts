// One guest, every configuration of the engine (../engine/configurations.ts): the same to the instruction.
import { determinismOf, guestsOf } from "../engine/determinism-suite.ts";

determinismOf(async () => {
  const { stream } = await import("../../../fuzz/cpu-arm64.ts");
  const { a64Guest } = await import("./fencing-guest.ts");
  const { coreModule } = await import("./core-module.ts");
  return guestsOf((seed, configuration) => stream(coreModule(), seed, configuration), a64Guest);
});
