// Scenario files: TypeScript or JavaScript modules that export scenarios. esbuild strips the types and bundles what a file imports from
// beside it, so that this works on every Node we support; "nestbox" always means this copy. Nothing of the user's runs here: that is the
// worker's to do (scenario-worker.ts).

import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { UsageError } from "./exit-codes.ts";
import { fileProblem } from "./input-file.ts";
import { SourcePositions } from "./source-positions.ts";

const LIBRARY = new URL("../scenario/index.js", import.meta.url).href;

export interface ScenarioModule {
  /** As the user named it. */
  readonly file: string;
  /** The bundle, for `import`. */
  readonly url: string;
  readonly positions: SourcePositions;
  /** Absolute paths of what it was made from. */
  readonly sources: readonly string[];
}

/** Files named *.scenario.ts below the folders among `paths`; the files among them as they are. Throws UsageError. */
export function findScenarioFiles(paths: readonly string[]): string[] {
  const found = paths.flatMap((path) => {
    let about: ReturnType<typeof statSync>;
    try {
      about = statSync(path);
    } catch (error) {
      throw new UsageError(`scenario ${path}: ${fileProblem(error)}`);
    }
    if (about.isDirectory()) {
      const files = filesBelow(path);
      if (files.length === 0) throw new UsageError(`scenario ${path}: no file in this folder is named *.scenario.ts`);
      return files;
    }
    if (!/\.[cm]?[jt]sx?$/.test(path) || /\.d\.[cm]?ts$/.test(path)) {
      throw new UsageError(`scenario ${path}: no TypeScript or JavaScript file`);
    }
    return [path];
  });
  return [...new Set(found)];
}

function filesBelow(folder: string): string[] {
  const entries = readdirSync(folder, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1));
  return entries.flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return entry.name === "node_modules" || entry.name.startsWith(".") ? [] : filesBelow(path);
    return /\.scenario\.[cm]?[jt]s$/.test(entry.name) ? [path] : [];
  });
}

/** Bundles of scenario files, in a folder that is gone when it is disposed of, or when the process ends. */
export class ScenarioBundles {
  readonly #folder = mkdtempSync(join(tmpdir(), "nestbox-scenario-"));
  readonly #remove = () => rmSync(this.#folder, { recursive: true, force: true });
  #count = 0;

  constructor() {
    process.on("exit", this.#remove);
  }

  /** Throws UsageError for a file that cannot be read, does not parse, or exports nothing. */
  async bundle(file: string): Promise<ScenarioModule> {
    const { build } = await import("esbuild");
    const output = join(this.#folder, `${++this.#count}.scenario.mjs`);
    try {
      const result = await build({
        entryPoints: [resolve(file)],
        outfile: output,
        bundle: true,
        write: false,
        format: "esm",
        platform: "node",
        target: "node20",
        sourcemap: "external",
        metafile: true,
        logLevel: "silent",
        plugins: [{ name: "nestbox", setup: (setup) => setup.onResolve({ filter: /^[^./]/ }, resolvePackage) }],
      });
      const [described] = Object.values(result.metafile.outputs).filter(({ entryPoint }) => entryPoint !== undefined);
      if (described?.exports.length === 0) throw new UsageError(exportsNone(file));
      const text = (ending: string) => result.outputFiles.find(({ path }) => path.endsWith(ending))!.text;
      writeFileSync(output, text(".mjs"));
      const { href } = pathToFileURL(output);
      return {
        file,
        url: href,
        positions: new SourcePositions(text(".map"), href, this.#folder),
        sources: Object.keys(result.metafile.inputs).map((path) => resolve(path)),
      };
    } catch (error) {
      if (error instanceof UsageError) throw error;
      const failure = error as { errors?: { text: string; location?: { file: string; line: number } | null }[] };
      const first = failure.errors?.[0];
      const place = first?.location == null ? file : `${first.location.file}:${first.location.line}`;
      throw new UsageError(`scenario ${place}: ${first?.text ?? fileProblem(error)}`);
    }
  }

  [Symbol.dispose](): void {
    process.off("exit", this.#remove);
    this.#remove();
  }
}

export function exportsNone(file: string): string {
  return `scenario ${file}: exports no scenario (export default scenario("…", (t) => { … }))`;
}

/** "nestbox" is ours; packages of the scenario's own stay where they are installed. */
function resolvePackage({ path, resolveDir, kind }: { path: string; resolveDir: string; kind: string }) {
  if (kind === "entry-point") return null;
  if (path === "nestbox") return { path: LIBRARY, external: true };
  if (path.startsWith("node:")) return { path, external: true };
  try {
    const require = createRequire(join(resolveDir, "x.js"));
    return { path: pathToFileURL(require.resolve(path)).href, external: true };
  } catch {
    return { errors: [{ text: `there is no package "${path}" in ${resolveDir} or above it` }] };
  }
}

/** Folders whose changes may change what runs. */
export function foldersOf(paths: readonly string[], modules: readonly ScenarioModule[]): Set<string> {
  const folders = new Set(modules.flatMap(({ sources }) => sources.map(dirname)));
  for (const path of paths) folders.add(statSync(path).isDirectory() ? resolve(path) : dirname(resolve(path)));
  return folders;
}
