// An access across two pages never hits by one of them alone. The engine's TLB compares the page of an access's last byte with the entry of its first: two
// neighbouring pages that shared a place in it would let an access in by the second page, and move bytes before that page's frame.
import { readFileSync } from "node:fs";
import { beforeAll, expect, it } from "vitest";
import type { HartMmioPort } from "../../../../vmm/vcpu/engine/core.ts";
import * as layout from "./tiny/assembly/layout.ts";
import { buildTiny } from "./tiny/build.mjs";
import * as t from "./tiny/tiny.ts";

const RAM = 0x8000_0000n;
const CODE = 0x2000n;
const VECTOR = RAM + 0xe000n;
const EAGER = { interval: 16, samples: 1 };
const SILENT: HartMmioPort = { high: 0, load: () => 0, store: () => {} };

let module: WebAssembly.Module;
beforeAll(async () => {
  module = new WebAssembly.Module(readFileSync(await buildTiny()));
});

// RAM begins at 2 GiB: there all bits of a page's number below 2^19 carry at once.
it.each([
  ["load", t.ldr],
  ["store", t.str],
] as const)("a %s that begins below RAM and ends in its first page is refused, the page cached or not", (_, access) => {
  for (const translate of [false, EAGER]) {
    for (const below of [1n, 4n, 7n]) {
      const core = new t.TinyCore({ module, ramBytes: 1 << 20, mmio: SILENT, harts: 1, decodePages: 16, translate });
      const ram = new DataView(core.memory.buffer, core.ramOffset, core.ramBytes);
      // 100 accesses to the first page, then one of 8 bytes across its beginning, by the same instruction
      const program = [access(2, 5, 0), t.add(3, 3, 0, 1), t.cmp(3, 6), t.blt(-3), t.add(5, 7, 0, 0), t.b(-5)];
      program.forEach((word, n) => {
        ram.setUint32(Number(CODE) + 4 * n, word, true);
      });
      ram.setUint32(Number(VECTOR - RAM), t.b(0), true);
      core.fenceInstructions(0);
      core.write(0, "pc", RAM + CODE);
      core.write(0, "vector", VECTOR);
      for (const [index, value] of Object.entries({ 2: -1n, 5: RAM, 6: 100n, 7: RAM - below }))
        core.setR(0, Number(index), BigInt.asUintN(64, value));
      // up to the access across, and what the memory is then
      core.run(0, 100 * 4 + 2);
      const before = new Uint8Array(core.memory.buffer, core.ramOffset - 8, 16).slice();
      core.run(0, 20);
      expect([core.read(0, "pc"), core.read(0, "cause"), core.read(0, "far")], `${below} below`).toEqual([
        VECTOR,
        BigInt(layout.FAULT_BUS),
        RAM - below,
      ]);
      expect(new Uint8Array(core.memory.buffer, core.ramOffset - 8, 16)).toEqual(before);
    }
  }
});
