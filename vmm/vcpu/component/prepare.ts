// From a component's bytes to something a vCPU can start: check, transpile with jco, compile the core modules. This is the shell's
// part (jco and compilation are asynchronous); it needs no `node:` module. What comes out is run synchronously by ComponentVcpu.
//
// jco puts names of the image into the JavaScript it generates, and does not escape all of them. Three layers, each of which
// suffices by itself, stand between a name and code that runs:
//
//   1  the image     every name is checked before jco sees it (image-check.ts), custom sections are made harmless (custom-sections.ts)
//   2  the code      what jco generated is parsed and must have the shape that jco's code has (generated-code.ts)
//   3  no evaluation what links the core modules is read out of it as data and carried out by us (link-plan.ts); there is no eval, no
//                    Function, no import of generated text in nestbox
//
// test/fuzz/image-names.ts switches each off in turn.

import type { Statement } from "acorn";
import { generate } from "#jco/component";
import { printable } from "../../../host/base/printable.ts";
import { excessOfCore } from "./core-limits.ts";
import { withPlainCustomSections } from "./custom-sections.ts";
import { type GeneratedCode, linkingStatements, readGeneratedCode } from "./generated-code.ts";
import { checkImage } from "./image-check.ts";
import { carryOut, type LinkHost, linkPlan } from "./link-plan.ts";

/** Characters of what jco or the engine says. */
const LONGEST_REASON = 300;

/** Core modules by the names jco gave them. */
export type CoreModules = ReadonlyMap<string, WebAssembly.Module>;

/** Makes fresh instances of the core modules, linked to each other and to the world; the core function that is `run`. */
export type LinkComponent = (host: LinkHost) => () => unknown;

export interface PreparedComponent {
  readonly modules: CoreModules;
  readonly link: LinkComponent;
}

/** One line that says what is wrong with the image; the caller puts the file's name before it. */
export interface ImageRefusal {
  readonly error: string;
}

/** The layers, so that tests can leave one out. A string is a refusal. */
export interface PrepareLayers {
  readonly image: (bytes: Uint8Array) => Uint8Array | string;
  readonly code: (code: GeneratedCode) => readonly Statement[] | string;
  readonly link: (
    statements: readonly Statement[],
    code: GeneratedCode,
    modules: CoreModules,
  ) => LinkComponent | string;
}

export const LAYERS: PrepareLayers = {
  image: (bytes) => checkImage(bytes) ?? withPlainCustomSections(bytes),
  code: linkingStatements,
  link: (statements, { run }, modules) => {
    const plan = linkPlan(statements, run);
    return typeof plan === "string" ? plan : (host) => carryOut(plan, modules, host);
  },
};

export async function prepareComponent(bytes: Uint8Array): Promise<PreparedComponent | ImageRefusal> {
  const plain = LAYERS.image(bytes);
  if (typeof plain === "string") return { error: plain };
  const transpiled = await transpile(plain);
  return "error" in transpiled ? transpiled : linkable(LAYERS, transpiled);
}

export interface TranspiledComponent {
  readonly modules: CoreModules;
  /** jco's JavaScript. */
  readonly source: string;
}

/** The files that jco makes of an image, by name. Throws what jco throws. */
export async function generateFiles(
  bytes: Uint8Array,
  generator: typeof generate = generate,
): Promise<readonly (readonly [string, Uint8Array])[]> {
  const { files } = await generator(bytes, {
    name: "guest",
    map: [],
    instantiation: { tag: "sync" },
    importBindings: { tag: "hybrid" },
    noTypescript: true,
    noNodejsCompat: true,
    noNamespacedExports: true,
    base64Cutoff: 0,
  });
  return files;
}

/** Runs jco (`generator`: one that a test loaded) and compiles the core modules. */
export async function transpile(
  bytes: Uint8Array,
  generator: typeof generate = generate,
): Promise<TranspiledComponent | ImageRefusal> {
  try {
    const files = await generateFiles(bytes, generator);
    const modules = new Map<string, WebAssembly.Module>();
    let source: string | null = null;
    for (const [name, contents] of files) {
      if (name.endsWith(".js")) source = new TextDecoder().decode(contents);
      if (!name.endsWith(".wasm")) continue;
      modules.set(name, await WebAssembly.compile(contents as BufferSource));
      const excess = excessOfCore(contents);
      if (excess !== null) return { error: excess };
    }
    if (source === null) throw new Error("jco made no JavaScript module");
    return { modules, source };
  } catch (error) {
    return notValid(error);
  }
}

/** What jco made, through the second and the third layer. */
export function linkable(
  layers: Pick<PrepareLayers, "code" | "link">,
  { modules, source }: TranspiledComponent,
): PreparedComponent | ImageRefusal {
  try {
    const code = readGeneratedCode(source);
    if (typeof code === "string") return { error: printable(code, LONGEST_REASON) };
    const statements = layers.code(code);
    if (typeof statements === "string") return { error: printable(statements, LONGEST_REASON) };
    const link = layers.link(statements, code, modules);
    return typeof link === "string" ? { error: printable(link, LONGEST_REASON) } : { modules, link };
  } catch (error) {
    return notValid(error);
  }
}

function notValid(error: unknown): ImageRefusal {
  const text = error instanceof Error ? error.message : String(error);
  return { error: printable(`not a valid component: ${text.split("\n")[0]!}`, LONGEST_REASON) };
}
