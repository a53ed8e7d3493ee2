// Scenario files for the page, as modules that a browser imports from beside it, with the library in one of its own that they share. A scenario is a program of the user's; the
// page runs it in its worker.

import { readFileSync } from "node:fs";
import { basename, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import type { Plugin } from "esbuild";
import { packageFile } from "../../host/adapters/package-root.ts";
import { runName } from "../scenario/run-scenario.ts";
import { exportedScenarios } from "../scenario/scenario.ts";
import { UsageError } from "./exit-codes.ts";
import { exportsNone, ScenarioBundles } from "./scenario-files.ts";
import type { ExtraFile } from "./ui-server.ts";

const LIBRARY = fileURLToPath(new URL("../scenario/index.js", import.meta.url));
/** Its name beside the scenarios. */
const SHARED = "nestbox.js";
const PROGRAMME = packageFile("dist/ui/programme.json");

/** A file as one module for a browser, and the names of its runs: a scenario each, or one for each value of its sweep. Throws UsageError. */
export async function builtScenario(
  file: string,
): Promise<{ readonly code: string; readonly names: readonly string[] }> {
  const names = exportedScenarios(await exportsOf(file)).flatMap((one) =>
    (one.options.sweep ?? [undefined]).map((value) => runName(one, value)),
  );
  if (names.length === 0) throw new UsageError(exportsNone(file));
  try {
    return { code: await browserModule(resolve(file)), names };
  } catch (error) {
    const [first] = (error as { errors?: { text: string }[] }).errors ?? [];
    throw new UsageError(`scenario ${file}: a browser cannot run it: ${first?.text ?? String(error)}`);
  }
}

async function browserModule(entry: string): Promise<string> {
  const { build } = await import("esbuild");
  const { outputFiles } = await build({
    entryPoints: [entry],
    bundle: true,
    write: false,
    format: "esm",
    platform: "browser",
    target: "es2022",
    minify: true,
    logLevel: "silent",
    plugins: [libraryBeside],
  });
  return outputFiles[0]!.text;
}

const libraryBeside: Plugin = {
  name: "the library beside the scenarios",
  setup({ onResolve }) {
    onResolve({ filter: /^nestbox$/ }, () => ({ path: `./${SHARED}`, external: true }));
  },
};

/** What the file exports, as the command line runs it. */
async function exportsOf(file: string): Promise<Readonly<Record<string, unknown>>> {
  const bundles = new ScenarioBundles();
  try {
    const { url } = await bundles.bundle(file);
    return (await import(url)) as Record<string, unknown>;
  } finally {
    bundles[Symbol.dispose]();
  }
}

/** The files, and the programme that names them. */
export async function scenariosForPage(files: readonly string[]): Promise<ExtraFile[]> {
  const extra: ExtraFile[] = [{ name: `scenarios/${SHARED}`, contents: await browserModule(LIBRARY) }];
  const scenarios: { module: string; names: readonly string[] }[] = [];
  for (const file of files) {
    const stem = basename(file)
      .replace(/(\.scenario)?\.[cm]?[jt]sx?$/, "")
      .replace(/[^\w.-]/g, "-");
    let module = `${stem}.js`;
    const taken = (): boolean => module === SHARED || scenarios.some((other) => other.module === module);
    for (let n = 2; taken(); n++) module = `${stem}-${n}.js`;
    const { code, names } = await builtScenario(file);
    extra.push({ name: `scenarios/${module}`, contents: code });
    scenarios.push({ module, names });
  }
  const programme = JSON.parse(readFileSync(PROGRAMME, "utf8")) as object;
  return [...extra, { name: "programme.json", contents: JSON.stringify({ ...programme, scenarios }) }];
}
