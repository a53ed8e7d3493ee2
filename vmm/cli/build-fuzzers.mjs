// Bundles each fuzzer of test/fuzz (a file there that is no test) with the oracles and machines of test/ it uses into dist/fuzz/NAME.js.
// What it drives, host/ and vmm/, is not part of the bundle: that is the same compiled code that everything else runs.
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { basename, join, relative, resolve, sep } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { build } from "esbuild";

const root = fileURLToPath(new URL("../..", import.meta.url));
const sources = join(root, "test", "fuzz");
const output = join(root, "dist", "fuzz");

const product = {
  name: "product",
  setup(setup) {
    setup.onResolve({ filter: /^\.\.?\// }, ({ path, resolveDir }) => {
      const within = relative(root, resolve(resolveDir, path)).split(sep).join("/");
      if (!/^(host|vmm|guest-fixtures)\//.test(within)) return undefined;
      return { path: `../${within.replace(/\.ts$/, ".js")}`, external: true };
    });
  },
};

export async function buildFuzzers() {
  const names = (await readdir(sources)).filter((name) => name.endsWith(".ts") && !name.endsWith(".test.ts"));
  const { outputFiles } = await build({
    entryPoints: names.map((name) => join(sources, name)),
    outdir: output,
    bundle: true,
    write: false,
    format: "esm",
    platform: "node",
    target: "node20",
    packages: "external",
    plugins: [product],
  });
  await mkdir(output, { recursive: true });
  const index = join(output, "index.json");
  const kept = new Set([index, ...outputFiles.map(({ path }) => path)]);
  for (const name of await readdir(output)) if (!kept.has(join(output, name))) await rm(join(output, name));
  for (const { path, text } of outputFiles) {
    const old = await readFile(path, "utf8").catch(() => null);
    if (old !== text) await writeFile(path, text);
  }
  // What each is about, so that the help text need not load them all.
  const about = {};
  for (const { path } of outputFiles.sort((a, b) => (a.path < b.path ? -1 : 1))) {
    const name = basename(path, ".js");
    const { fuzzer } = await import(pathToFileURL(path).href);
    if (typeof fuzzer?.about !== "string") {
      throw new Error(`test/fuzz/${name}.ts: expected "export const fuzzer: Fuzzer" (vmm/cli/fuzzer.ts)`);
    }
    about[name] = fuzzer.about;
  }
  await writeFile(index, JSON.stringify(about));
}
