// From a component's bytes to something a vCPU can start: check, transpile with jco, compile the core modules. This is the shell's
// part (jco and compilation are asynchronous); it needs no `node:` module. What comes out is run synchronously by ComponentVcpu.
//
// jco turns the component into JavaScript that links its core modules, and that JavaScript is evaluated here. It is jco's, made
// from a component that passed the check; names out of the file reach it only through jco's own quoting.

import { generate } from "#jco/component";
import { excessOfCore } from "./core-limits.ts";
import { checkImage } from "./image-check.ts";
import { printable } from "./printable.ts";

/** jco's entry point for sync instantiation: links core modules by calling `instantiateCore` for each. */
export type InstantiateComponent = (
  getCoreModule: (name: string) => WebAssembly.Module,
  imports: Readonly<Record<string, Readonly<Record<string, unknown>>>>,
  instantiateCore: (module: WebAssembly.Module, imports?: WebAssembly.Imports) => WebAssembly.Instance,
) => { readonly run: () => unknown };

export interface PreparedComponent {
  /** Core modules by the names jco gave them. */
  readonly modules: ReadonlyMap<string, WebAssembly.Module>;
  /** A fresh one for each call: jco keeps per-instance state in the module's scope. */
  readonly link: () => InstantiateComponent;
}

/** One line that says what is wrong with the image; the caller puts the file's name before it. */
export interface ImageRefusal {
  readonly error: string;
}

export async function prepareComponent(bytes: Uint8Array): Promise<PreparedComponent | ImageRefusal> {
  const misfit = checkImage(bytes);
  if (misfit !== null) return { error: misfit };
  try {
    const { files } = await generate(bytes, {
      name: "guest",
      map: [],
      instantiation: { tag: "sync" },
      importBindings: { tag: "hybrid" },
      noTypescript: true,
      noNodejsCompat: true,
      noNamespacedExports: true,
      base64Cutoff: 0,
    });
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
    const link = new Function(`${source.replace(/^export /gm, "")}\nreturn instantiate;`) as () => InstantiateComponent;
    return { modules, link };
  } catch (error) {
    return { error: `not a valid component: ${firstLine(error)}` };
  }
}

function firstLine(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return printable(text.split("\n")[0]!);
}
