// What a command loads: its own code, of the bundle and of Node's modules and packages. Node itself says what it has loaded.

import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { UART_BASE } from "../../../vmm/memory-map.ts";
import { Program } from "../rv64-program.ts";
import { nestboxFile } from "./command-line.ts";

let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "nestbox-bundle-"));
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Sources that a command has loaded, as a path ends: of the bundle what its parts were made from, of anything else the file. */
function loadedBy(...args: string[]): readonly string[] {
  const coverage = mkdtempSync(join(folder, "coverage-"));
  const env = { ...process.env, NODE_V8_COVERAGE: coverage };
  expect(spawnSync(process.execPath, [nestboxFile, ...args], { env, timeout: 120_000 }).status).toBe(0);
  const urls = readdirSync(coverage).flatMap((name) => {
    const { result } = JSON.parse(readFileSync(join(coverage, name), "utf8")) as { result: { url: string }[] };
    return result.map(({ url }) => url).filter((url) => url.startsWith("file:"));
  });
  return urls.flatMap((url) => {
    const file = fileURLToPath(url);
    if (!file.includes("/dist/bundle/")) return [file];
    return (JSON.parse(readFileSync(`${file}.map`, "utf8")) as { sources: string[] }).sources;
  });
}

const ending = (sources: readonly string[], end: RegExp) => sources.filter((source) => end.test(source));

describe("what a command loads", { timeout: 120_000 }, () => {
  it("of --version is no verb and no model", () => {
    const sources = loadedBy("--version");
    expect(ending(sources, /vmm\/cli\/main\.ts$/)).toHaveLength(1);
    expect(ending(sources, /\/(host\/(arch|hw|kernel)|viommu|vcpu|commands)\/|\/zod\//)).toEqual([]);
  });

  it("of boot --kernel is the machine, and neither a transpiler nor a bundler nor another verb", () => {
    const kernel = join(folder, "kernel");
    writeFileSync(kernel, new Program().print(UART_BASE, "a kernel\n").reset().imageFile);
    const sources = loadedBy("boot", "--memory", "4M", "--kernel", kernel);
    expect(ending(sources, /vmm\/kernel-machine\.ts$/)).toHaveLength(1);
    expect(ending(sources, /vmm\/cli\/commands\//)).toEqual(ending(sources, /commands\/boot\.ts$/));
    expect(ending(sources, /\/(jco|acorn|esbuild)\//)).toEqual([]);
    expect(ending(sources, /\/(ui-server|scenario-runner|fuzz-campaign|served-host|record-machine)\.ts$/)).toEqual([]);
  });

  it("of scenario is the bundle in both threads, the library included: there is one copy of every class", () => {
    const file = join(folder, "one.scenario.ts");
    writeFileSync(file, 'import { scenario } from "nestbox";\nexport default scenario("one", () => {});\n');
    expect(ending(loadedBy("scenario", file), /\/dist\/(host|vmm)\//)).toEqual([]);
  });
});
