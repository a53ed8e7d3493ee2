// One guest, every configuration of the engine (../engine/configurations.ts): the same to the instruction.
import { describe, expect, it } from "vitest";
import type { Configuration } from "../engine/configurations.ts";
import { determinismOf, guestsOf } from "../engine/determinism-suite.ts";
import { Board, RAM } from "./board.ts";
import * as encode from "./encode.ts";

determinismOf(async () => {
  const { stream } = await import("../../../fuzz/cpu.ts");
  const { rv64Guest } = await import("./fencing-guest.ts");
  const { coreModule } = await import("./core-module.ts");
  return guestsOf((seed, configuration) => stream(coreModule(), seed, configuration), rv64Guest);
});

describe("a guest that changes code and does not fence", () => {
  const FUNCTION = RAM + 0x3000n;
  const ROUNDS = 600n;

  /** Calls a function that adds 1, and has another one there that adds 2 from the eleventh round on; what has been added. */
  function added(translate: Configuration["translate"]): bigint {
    const board = new Board({ translate });
    board.place(FUNCTION, encode.addi(7, 7, 1), encode.jalr(0, 1, 0));
    const loop = [
      encode.jalr(1, 10, 0),
      encode.b(1, 12, 13, 8),
      encode.store(2, 10, 14, 0),
      encode.addi(12, 12, -1),
      encode.b(1, 12, 0, -16),
    ];
    board.place(RAM, ...loop, encode.WFI);
    board.setX(10, FUNCTION);
    board.setX(12, ROUNDS);
    board.setX(13, ROUNDS - 10n);
    board.setX(14, BigInt(encode.addi(7, 7, 2)));
    board.run(100_000);
    return board.x(7);
  }

  it("does not see by that when translations have no more room", () => {
    for (const capacity of [1, 2])
      for (let interval = 1; interval < 50; interval++)
        expect([interval, added({ interval, samples: 1, capacity })]).toEqual([interval, ROUNDS]);
  });
});
