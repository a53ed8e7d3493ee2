// jco is itself a component, and one that has trapped refuses every call after it. Images that only the check of the image keeps away from
// jco do trap it (a function imported under a URL, say), so whoever leaves that check out needs a new jco now and then.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import type { generate } from "#jco/component";
import { type ImageRefusal, type TranspiledComponent, transpile } from "../../../vmm/vcpu/component/prepare.ts";

export const TRAPPED = /wasm trap/;

let jco: typeof generate | null = null;
let loaded = 0;

/** Transpiles with a jco that has not trapped, and is not the one that the product uses. */
export async function transpileAfresh(bytes: Uint8Array): Promise<TranspiledComponent | ImageRefusal> {
  jco ??= await freshJco();
  const transpiled = await transpile(bytes, jco);
  if ("error" in transpiled && TRAPPED.test(transpiled.error)) jco = null;
  return transpiled;
}

/** Another instance of jco's module: a new query makes a new module. */
async function freshJco(): Promise<typeof generate> {
  const file = createRequire(import.meta.url).resolve("#jco/component");
  const module = (await import(`${pathToFileURL(file).href}?fresh=${++loaded}`)) as { generate: typeof generate };
  return module.generate;
}
