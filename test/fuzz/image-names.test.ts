// A little of `nestbox fuzz image-names` in every test run, and proof that it can fail: with all three layers left out, names do run.

import { describe, expect, it } from "vitest";
import { ScriptedMachine } from "../vmm/vcpu/component/scripted-machine.ts";
import { utf8 } from "./image-names/component-encoder.ts";
import { linkableThrough, STANDING } from "./image-names/layers.ts";
import { canarySang, everyBreakout } from "./image-names/payloads.ts";
import { DEFAULT_NAMES, image, type Position } from "./image-names/positions.ts";
import { transpileAfresh } from "./image-names/transpiler.ts";
import { findingIn, hostileImage, runsCode } from "./image-names.ts";

/** Where jco 1.35 puts a name into code without escaping it. */
const UNESCAPED: readonly Position[] = [
  "core export, lifted",
  "core import, module",
  "core import, field",
  "core import of memory, module",
  "core import, start module",
];

async function transpiled(bytes: Uint8Array) {
  const code = await transpileAfresh(bytes);
  if ("error" in code) throw new Error(code.error);
  return code;
}

describe("a hostile name in an image", () => {
  it.each(UNESCAPED)("runs as code when no layer stands: %s", async (position) => {
    const sang: string[] = [];
    for (const { wrapping, bytes } of everyBreakout(DEFAULT_NAMES[position] ?? "name")) {
      const hostile = image({ [position]: bytes });
      if (await runsCode([], hostile, await transpiled(hostile))) sang.push(wrapping);
    }
    expect(sang).not.toEqual([]);
  });

  it.each(UNESCAPED)("does not as long as one layer stands, whichever: %s", async (position) => {
    for (const { wrapping, bytes } of everyBreakout(DEFAULT_NAMES[position] ?? "name")) {
      const hostile = image({ [position]: bytes });
      const code = await transpiled(hostile);
      for (const standing of STANDING) {
        expect([wrapping, standing, await runsCode(standing, hostile, code)]).toEqual([wrapping, standing, false]);
      }
    }
  });

  it("in 100 random images comes to nothing", async () => {
    for (let seed = 1; seed <= 100; seed++) expect([seed, await findingIn(hostileImage(seed))]).toEqual([seed, null]);
  }, 600_000);
});

describe("a sound image", () => {
  const sets = [...STANDING, []].map((standing) => [standing.join(", ") || "none", standing] as const);
  it.each(sets)("boots through these layers: %s", async (_, standing) => {
    const prepared = linkableThrough(standing, await transpiled(image({})));
    if ("error" in prepared) throw new Error(prepared.error);
    const machine = new ScriptedMachine();
    new Uint8Array(machine.memory.buffer).set(utf8("hi"), 16);
    expect(machine.boot(prepared)).toEqual({ kind: "exited", status: 0 });
    expect(machine.output).toBe("hi");
    expect(canarySang()).toBe(false);
  });
});
