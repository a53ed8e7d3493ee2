// Bundles the command line into dist/bundle: node loads a handful of files for a verb instead of hundreds. What a verb loads later (import() in the
// sources) is a part of its own. The library that scenario files import is another entry of the same bundle, so that there is one copy of every class:
// `instanceof` holds between a scenario and the command that runs it.
//
// Folders below are as in vmm/, and all parts stand in cli/: what names a module beside itself (a worker, the library) finds it bundled from bundled
// code, compiled from compiled code.
import { mkdir, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const root = fileURLToPath(new URL("../..", import.meta.url));
const output = join(root, "dist", "bundle");
const ENTRIES = ["cli/main", "cli/scenario-worker", "cli/remote-server", "scenario/index"];
/** Written last, so that it is newer than the rest. */
const INPUTS = join(output, "inputs.json");
/** Packages written for `require` ask it for modules of Node's only. A browser has none, and what runs there asks for none. */
const REQUIRE = "const require = globalThis.process?.getBuiltinModule;";

export async function buildBundle() {
  if (await isMade()) return;
  const { outputFiles, metafile } = await build({
    entryPoints: Object.fromEntries(ENTRIES.map((name) => [name, join(root, "vmm", `${name}.ts`)])),
    outdir: output,
    absWorkingDir: root,
    bundle: true,
    splitting: true,
    write: false,
    metafile: true,
    format: "esm",
    platform: "node",
    target: "node20",
    // Names stay, for stacks.
    minifySyntax: true,
    minifyWhitespace: true,
    chunkNames: "cli/[name]-[hash]",
    sourcemap: "linked",
    banner: { js: REQUIRE },
    legalComments: "none",
    external: ["#jco/*", "esbuild"],
    logLevel: "warning",
  });
  const inputs = Object.keys(metafile.inputs);
  const files = [...outputFiles, { path: join(output, "LICENSES"), text: await licences(inputs) }];
  const kept = new Set(files.map(({ path }) => path));
  for (const { path, text } of files) {
    const old = await readFile(path, "utf8").catch(() => null);
    await mkdir(dirname(path), { recursive: true });
    if (old !== text) await writeFile(path, text);
  }
  for (const name of await readdir(output, { recursive: true })) {
    const path = join(output, name);
    if (!kept.has(path) && (await stat(path)).isFile()) await rm(path);
  }
  await writeFile(INPUTS, JSON.stringify(inputs));
}

/** True if nothing that it was made from, this script included, is newer. */
async function isMade() {
  const made = await stat(INPUTS).catch(() => null);
  if (made === null) return false;
  const inputs = JSON.parse(await readFile(INPUTS, "utf8"));
  for (const name of [...inputs, relative(root, fileURLToPath(import.meta.url)), "package-lock.json"]) {
    const about = await stat(join(root, name)).catch(() => null);
    if (about === null || about.mtimeMs > made.mtimeMs) return false;
  }
  return true;
}

/** The licences of the packages that are part of it. */
async function licences(inputs) {
  const packages = new Set(inputs.flatMap((name) => /^(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(name)?.[1] ?? []));
  const texts = [...packages].sort().map(async (name) => {
    const folder = join(root, name.split("/").join(sep));
    const { name: title, version } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
    const file = (await readdir(folder)).find((candidate) => /^licen[cs]e/i.test(candidate));
    if (file === undefined) throw new Error(`${name} has no licence to go with the bundle`);
    return `${title} ${version}\n\n${await readFile(join(folder, file), "utf8")}`;
  });
  return (await Promise.all(texts)).join("\n\n----------\n\n");
}
