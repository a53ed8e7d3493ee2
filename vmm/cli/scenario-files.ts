// Loads scenario files: TypeScript or JavaScript modules that export scenarios. esbuild strips the types and bundles what the file
// imports from beside it, so that this works on every Node we support; "nestbox" always means this copy.

import { existsSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { isScenario, type Scenario } from "../scenario/scenario.ts";
import { UsageError } from "./exit-codes.ts";

const LIBRARY = new URL("../scenario/index.js", import.meta.url).href;

export interface LoadedScenario {
  readonly file: string;
  readonly scenario: Scenario;
}

export async function loadScenarios(files: readonly string[]): Promise<LoadedScenario[]> {
  const loaded: LoadedScenario[] = [];
  for (const file of files) {
    if (!existsSync(file)) throw new UsageError(`scenario ${file}: no such file`);
    const exported = Object.values(await importFile(file)).flatMap((value) => (Array.isArray(value) ? value : [value]));
    const scenarios = exported.filter(isScenario);
    if (scenarios.length === 0) {
      throw new UsageError(`scenario ${file}: exports no scenario (export default scenario("…", (t) => { … }))`);
    }
    for (const scenario of scenarios) loaded.push({ file, scenario });
  }
  return loaded;
}

async function importFile(file: string): Promise<Record<string, unknown>> {
  const { build } = await import("esbuild");
  const folder = await mkdtemp(join(tmpdir(), "nestbox-scenario-"));
  try {
    const result = await build({
      entryPoints: [resolve(file)],
      bundle: true,
      write: false,
      format: "esm",
      platform: "node",
      target: "node20",
      sourcemap: "inline",
      logLevel: "silent",
      plugins: [
        {
          name: "nestbox",
          setup(setup) {
            setup.onResolve({ filter: /^nestbox$/ }, () => ({ path: LIBRARY, external: true }));
            // Packages of the scenario's own stay where they are installed.
            setup.onResolve({ filter: /^[^./]/ }, ({ path, resolveDir }) => {
              if (path.startsWith("node:")) return { path, external: true };
              const require = createRequire(join(resolveDir, "x.js"));
              return { path: pathToFileURL(require.resolve(path)).href, external: true };
            });
          },
        },
      ],
    });
    const module = join(folder, "scenario.mjs");
    await writeFile(module, result.outputFiles[0]!.contents);
    return (await import(pathToFileURL(module).href)) as Record<string, unknown>;
  } catch (error) {
    const failure = error as { errors?: { text: string; location?: { file: string; line: number } | null }[] };
    const first = failure.errors?.[0];
    if (first !== undefined) {
      const place = first.location == null ? file : `${first.location.file}:${first.location.line}`;
      throw new UsageError(`scenario ${place}: ${first.text}`);
    }
    throw new UsageError(`scenario ${file}: ${(error as Error).message}`);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
