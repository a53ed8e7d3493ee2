// Makes the walk theatre's static files in dist/ui: the page and its worker, each bundled, guests transpiled ahead, and the transpiler for a dropped
// image in a part of its own that is loaded when it is needed. Any HTTP server shows them, without special headers.
//
//     node vmm/cli/build-ui.mjs [--output FOLDER] [SCENARIO FILE…]
import { copyFile, cp, mkdir, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { join, relative } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { build } from "esbuild";

const root = fileURLToPath(new URL("../..", import.meta.url));
const page = join(root, "vmm", "ui", "page");
const STATIC = ["index.html", "style.css", "icon.svg"];
/** Guests that the page offers, by fixture. */
const IMAGES = { "nested-dma": "nested-dma", hello: "hello", "two-iommus": "two-iommus" };

/** Bundles into `output`; nothing is done where it is newer than all it is made of. */
export async function buildUi(output = join(root, "dist", "ui")) {
  if (await isMade(join(output, "programme.json"))) return;
  await rm(output, { recursive: true, force: true });
  await mkdir(output, { recursive: true });
  await build({
    entryPoints: { page: join(page, "main.tsx"), worker: join(root, "vmm", "ui", "run", "worker.ts") },
    outdir: output,
    bundle: true,
    splitting: true,
    format: "esm",
    platform: "browser",
    target: "es2022",
    minify: true,
    jsx: "automatic",
    jsxImportSource: "preact",
    chunkNames: "part-[hash]",
    legalComments: "none",
    logLevel: "warning",
    plugins: [transpilerBeside],
  });
  for (const name of STATIC) await copyFile(join(page, name), join(output, name));
  await copyTranspiler(join(output, "jco"));
  const images = await transpileImages(output);
  await writeFile(join(output, "programme.json"), JSON.stringify({ images, scenarios: [] }));
}

/** jco stays as it was built (build-jco.mjs): its WebAssembly is found beside it. */
const transpilerBeside = {
  name: "transpiler beside the page",
  setup({ onResolve }) {
    onResolve({ filter: /^#jco\/component$/ }, () => ({ path: "./jco/component.js", external: true }));
  },
};

async function copyTranspiler(folder) {
  await mkdir(folder, { recursive: true });
  for (const name of await readdir(join(root, "dist", "jco"))) {
    if (/^(component\.js|LICENSE|js-component-bindgen.*\.wasm)$/.test(name)) {
      await copyFile(join(root, "dist", "jco", name), join(folder, name));
    }
  }
}

/** Each image as core modules and the plan that links them, so that the page runs it without a transpiler. */
async function transpileImages(output) {
  const parts = (name) => import(pathToFileURL(join(root, "dist", "vmm", "vcpu", "component", name)).href);
  const [{ LAYERS }, { readGeneratedCode }, { linkPlan }] = await Promise.all(
    ["prepare.js", "generated-code.js", "link-plan.js"].map(parts),
  );
  const { generateFiles } = await parts("prepare.js");
  for (const [name, fixture] of Object.entries(IMAGES)) {
    const bytes = LAYERS.image(await readFile(join(root, "guest-fixtures", "build", `${fixture}.wasm`)));
    if (typeof bytes === "string") throw new Error(`${fixture}: ${bytes}`);
    const folder = join(output, "images", name);
    await mkdir(folder, { recursive: true });
    const modules = [];
    let source = "";
    for (const [file, contents] of await generateFiles(bytes)) {
      if (file.endsWith(".js")) source = new TextDecoder().decode(contents);
      if (!file.endsWith(".wasm")) continue;
      modules.push(file);
      await writeFile(join(folder, file), contents);
    }
    const code = readGeneratedCode(source);
    const statements = typeof code === "string" ? code : LAYERS.code(code);
    const plan = typeof statements === "string" ? statements : linkPlan(statements, code.run);
    if (typeof plan === "string") throw new Error(`${fixture}: ${plan}`);
    await writeFile(join(folder, "plan.json"), JSON.stringify({ plan, modules }));
  }
  return await runnable();
}

/** Each image with the kinds of IOMMU on which it ends well: a guest drives those that it knows. */
async function runnable() {
  const load = (name) => import(pathToFileURL(join(root, "dist", "vmm", name)).href);
  const [{ prepareComponent }, { runImage }, { VIOMMU_KINDS }] = await Promise.all(
    ["vcpu/component/prepare.js", "ui/run/live.js", "viommu/kinds.js"].map(load),
  );
  const images = [];
  for (const [name, fixture] of Object.entries(IMAGES)) {
    const image = await prepareComponent(await readFile(join(root, "guest-fixtures", "build", `${fixture}.wasm`)));
    if ("error" in image) throw new Error(`${fixture}: ${image.error}`);
    const kinds = Object.keys(VIOMMU_KINDS).filter((kind) => runImage(image, kind, null, name).ended === null);
    if (kinds.length === 0) throw new Error(`${fixture} ends well on no kind of IOMMU`);
    images.push({ name, kinds });
  }
  return images;
}

/** Bundles scenario files beside a page, and has it offer them. */
async function addScenarios(output, files) {
  const { scenariosForPage } = await import(pathToFileURL(join(root, "dist", "vmm", "cli", "ui-scenarios.js")).href);
  await mkdir(join(output, "scenarios"), { recursive: true });
  for (const { name, contents } of await scenariosForPage(files)) await writeFile(join(output, name), contents);
}

async function isMade(file) {
  const made = await stat(file).catch(() => null);
  if (made === null) return false;
  for (const folder of ["host", "vmm"]) {
    for (const name of await readdir(join(root, folder), { recursive: true })) {
      if (!/\.(tsx?|mjs|html|css|svg|json)$/.test(name)) continue;
      if ((await stat(join(root, folder, name))).mtimeMs > made.mtimeMs) return false;
    }
  }
  return (await stat(join(root, "dist", "jco", "component.js"))).mtimeMs < made.mtimeMs;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const given = process.argv.slice(2);
  const at = given.indexOf("--output");
  const [output] = at < 0 ? [] : given.splice(at, 2).slice(1);
  const made = join(root, "dist", "ui");
  await buildUi(made);
  const target = output ?? made;
  if (target !== made) await cp(made, target, { recursive: true });
  if (given.length > 0) await addScenarios(target, given);
  console.log(`the walk theatre is in ${relative(process.cwd(), target) || target}; any HTTP server shows it`);
}
