// The images of guest-fixtures as `npm run build` makes them, each on a scripted machine without devices.

import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, statSync, utimesSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, it } from "vitest";
import { buildFixtures } from "../../guest-fixtures/build.mjs";
import { makeImage } from "../../guest-fixtures/make-image.mjs";
import { runGuarded } from "../../vmm/cli/wall-limit.ts";
import { prepareComponent } from "../../vmm/vcpu/component/prepare.ts";
import { ScriptedMachine, soundImage } from "../vmm/vcpu/component/scripted-machine.ts";

let images: Readonly<Record<string, string>>;
beforeAll(async () => {
  images = await buildFixtures();
});

const clang = ["clang", "wasm-ld"].every((tool) => spawnSync(tool, ["--version"]).error === undefined);
if (!clang) console.warn("SKIPPED: no clang with wasm-ld here, the C guest is not tested");

const bytesOf = (name: string) => readFileSync(images[name]!);

/** `limit`: on wall time, in ms. */
async function boot(name: string, limit = Number.POSITIVE_INFINITY) {
  const machine = new ScriptedMachine();
  const outcome = machine.boot(await soundImage(bytesOf(name)), (body) => runGuarded(body, limit));
  return { machine, outcome };
}

describe("the images of guest-fixtures", () => {
  it("hello says where its RAM is", async () => {
    const { machine, outcome } = await boot("hello");
    expect(machine.output).toBe("hello from a component guest\nRAM at 0x80000000, 4 MiB\n");
    expect(outcome).toEqual({ kind: "exited", status: 0 });
  });

  it("a trap shows the guest's functions by name, innermost first", async () => {
    const { machine, outcome } = await boot("error-trap");
    expect(machine.output).toBe("about to trap\n");
    expect(outcome.kind).toBe("trapped");
    if (outcome.kind !== "trapped") return;
    const names = outcome.stack.map((frame) => frame.replace(/ \(.*/, "").replace(/.*\//, ""));
    expect(names).toEqual(["descend", "descend", "descend", "run"]);
  });

  it("an endless loop ends at the wall limit", async () => {
    // On a busy machine a limit may be over before the guest has come to its loop: once it has, it has.
    let looping = "";
    for (let limit = 100; looping === ""; limit *= 2) {
      const { machine, outcome } = await boot("error-endless-loop", limit);
      expect(outcome).toEqual({ kind: "wall-limit" });
      looping = machine.output;
    }
    expect(looping).toBe("looping\n");
  });

  it("a pointer past RAM is the guest's trap", async () => {
    const { outcome } = await boot("error-pointer-past-ram");
    expect(outcome).toMatchObject({ kind: "trapped", message: expect.stringContaining("out of bounds") });
  });

  it("MMIO to nothing reads all ones in every size", async () => {
    const { machine, outcome } = await boot("error-mmio-to-nothing");
    expect(machine.output).toBe("nothing answered, and the guest goes on\n");
    expect(outcome).toEqual({ kind: "exited", status: 0 });
    expect(machine.accesses.map(({ size }) => size)).toEqual([4, 1, 2, 4, 8]);
  });

  it("an exit status is the guest's own", async () => {
    const { outcome } = await boot("error-exit-status");
    expect(outcome).toEqual({ kind: "exited", status: 7 });
  });

  it("the core module is refused as one", async () => {
    expect(await prepareComponent(bytesOf("error-core-module"))).toMatchObject({
      error: expect.stringMatching(/^a core WebAssembly module/),
    });
  });

  it("the component of another world is refused by its import's name", async () => {
    expect(await prepareComponent(bytesOf("error-other-world"))).toMatchObject({
      error: expect.stringContaining("example:elsewhere/shouting"),
    });
  });

  it("the default guest complains when the machine has no IOMMU", async () => {
    const { machine, outcome } = await boot("nested-dma");
    expect(machine.output).toBe("FAILED: this machine has no IOMMU\n");
    expect(outcome).toEqual({ kind: "exited", status: 1 });
  });

  it.skipIf(!clang)("the C guest prints how much RAM there is, and ends with 1 without an IOMMU", async () => {
    const folder = mkdtempSync(join(tmpdir(), "nestbox-c-"));
    try {
      const core = join(folder, "core.wasm");
      const source = fileURLToPath(new URL("../../guest-fixtures/c-hello/hello.c", import.meta.url));
      const flags =
        "--target=wasm32 -O2 -g -ffreestanding -nostdlib -Wall -Wextra -Werror -Wl,--no-entry -Wl,--import-memory";
      const compiled = spawnSync("clang", [...flags.split(" "), "-o", core, source], { encoding: "utf8" });
      expect(compiled.stderr).toBe("");
      await makeImage(core, join(folder, "image.wasm"));
      const machine = new ScriptedMachine();
      const image = await soundImage(readFileSync(join(folder, "image.wasm")));
      expect(machine.boot(image)).toEqual({ kind: "exited", status: 1 });
      expect(machine.output).toBe("hello from C\nRAM bytes 0x0000000000400000\nno IOMMU here\n");
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it("an image newer than its sources is left alone, an older one is made again", async () => {
    const file = images["error-core-module"]!;
    const before = statSync(file).mtimeMs;
    await buildFixtures();
    expect(statSync(file).mtimeMs).toBe(before);
    utimesSync(file, 1, 1);
    await buildFixtures();
    expect(statSync(file).mtimeMs).toBeGreaterThan(1000);
  });
});
